"""What rows must look like."""

import pandera.ibis as pa


class Habits(pa.DataFrameModel):
    """Nobody visits a negative number of times."""

    visits: int = pa.Field(ge=0)
