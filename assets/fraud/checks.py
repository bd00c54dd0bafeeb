"""What rows of the fraud groups must look like before anybody reads them."""

import pandera.ibis as pa


class CardProfile(pa.DataFrameModel):
    """A home on Earth, and a limit that a bank can have given."""

    card_id: int = pa.Field(ge=0)
    home_lat: float = pa.Field(ge=-90, le=90)
    home_lon: float = pa.Field(ge=-180, le=180)
    credit_limit: float = pa.Field(gt=0, le=1_000_000)
