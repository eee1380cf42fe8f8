"""One module a row: `ID`, `TITLE`, and `run(place, plan)`, which returns a `measure.Result`."""
