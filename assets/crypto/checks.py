"""What bars must look like before anybody reads them."""

import pandera.ibis as pa


class Bars(pa.DataFrameModel):
    """The low is the lowest and the high the highest, and somebody traded."""

    product: str
    open: float = pa.Field(gt=0)
    high: float = pa.Field(gt=0)
    low: float = pa.Field(gt=0)
    close: float = pa.Field(gt=0)
    volume: float = pa.Field(gt=0)
    trades: int = pa.Field(gt=0)

    @pa.dataframe_check
    def low_is_lowest(cls, data):
        """Neither end lies below the low."""
        return (data.table.low <= data.table.open) & (data.table.low <= data.table.close)

    @pa.dataframe_check
    def high_is_highest(cls, data):
        """Neither end lies above the high."""
        return (data.table.high >= data.table.open) & (data.table.high >= data.table.close)


class Moves(pa.DataFrameModel):
    """A coin that moves by a tenth in five minutes is a wrong price."""

    product: str
    move_30s: float = pa.Field(ge=-1000, le=1000, nullable=True)
    move_5m: float = pa.Field(ge=-1000, le=1000, nullable=True)
