"""What rows of the electricity groups must look like before anybody reads them."""

import pandera.ibis as pa


class DemandLags(pa.DataFrameModel):
    """Demand of a state: positive, and below anything its grid can carry."""

    area: str
    mw: float = pa.Field(gt=0, lt=100_000)


class WeatherNow(pa.DataFrameModel):
    """Air temperature on Earth."""

    area: str
    temperature: float = pa.Field(ge=-60, le=60, nullable=True)
