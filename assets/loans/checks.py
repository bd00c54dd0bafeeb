"""What an applicant's record must look like before anybody reads it."""

import pandera.ibis as pa


class ApplicantRecord(pa.DataFrameModel):
    """An income that somebody can have, and months that fit into a life."""

    applicant_id: int = pa.Field(gt=0)
    income: float = pa.Field(gt=0, le=10_000_000)
    debt_share: float = pa.Field(ge=0, le=10)
    late_payments: int = pa.Field(ge=0, le=100)
    employed_years: float = pa.Field(ge=0, le=80)
    gap_months: int = pa.Field(ge=0, le=960)
