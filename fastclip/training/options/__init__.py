"""The options of a run by room: what each flag means, and which values no run can use."""
