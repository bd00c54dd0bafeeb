"""What rows of the bakery groups must look like before anybody reads them."""

import pandera.ibis as pa


class RecentSales(pa.DataFrameModel):
    """Sales that a shop can have had."""

    shop_id: int
    loaves: float = pa.Field(ge=0, le=100_000)
