"""What rows of the churn groups must look like before anybody reads them."""

import pandera.ibis as pa


class CustomerAccount(pa.DataFrameModel):
    """A bill that somebody can have received."""

    customer_id: str
    contract: str = pa.Field(isin=["Month-to-month", "One year", "Two year"])
    tenure_months: int = pa.Field(ge=0, le=1200)
    monthly_charges: float = pa.Field(ge=0, le=10_000)
