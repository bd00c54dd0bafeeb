"""What the form of a team must look like before anybody reads it."""

import pandera.ibis as pa


class Form(pa.DataFrameModel):
    """Shares of games won, and leads that a basketball game can end with."""

    team: str
    won_3: float = pa.Field(ge=0, le=1)
    won_15: float = pa.Field(ge=0, le=1)
    lead_3: float = pa.Field(ge=-150, le=150)
    lead_15: float = pa.Field(ge=-150, le=150)
    points_10: float = pa.Field(ge=0, le=250)
