"""Where records come from: one layout a file; none decodes a picture or judges a caption."""
