"""Small parquet files."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
from shard_files import picture_bytes

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def image(number):
    return {"bytes": picture_bytes(number), "path": f"{number}.png"}


def write_parquet(path, columns, types=None, rows_a_group=None, features=None):
    arrays = {name: pa.array(cells, (types or {}).get(name)) for name, cells in columns.items()}
    table = pa.table(arrays)
    if features is not None:
        info = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(info)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows_a_group)
    return path
