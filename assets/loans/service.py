"""The loans service: is a loan repaid? Said when it is applied for, over HTTP, and by day in batch."""

from assets.loans import on_demand as od
from assets.loans.features import applicant_record, applications, settlements
from windrow import (
    Batch,
    Drift,
    Fairness,
    FeatureView,
    Gate,
    Label,
    Notebook,
    Online,
    PredictionService,
    TimeSplit,
    on_demand,
)

view = FeatureView(
    "loans",
    spine=applications,
    features=[
        applications.amount,
        applications.term_months,
        applications.rate,
        applications.purpose,
        applicant_record,
        on_demand(od.region, "string", postcode=applications.postcode),
        on_demand(
            od.instalment_share,
            amount=applications.amount,
            term_months=applications.term_months,
            income=applicant_record.income,
        ),
    ],
)

loans = PredictionService(
    "loans",
    view,
    # The longest term is 18 months of 30 days; before it is over no loan counts, whatever is known of it.
    Label.joined(settlements, on="loan_id", column="repaid", matures_after="550d"),
    model=Notebook("train_loans.ipynb"),
    # No loan is learned from that was settled after the first one that is judged was applied for.
    split=TimeSplit(test="365d", gap="550d"),
    gates=[
        Gate("auc", at_least=0.7),
        Fairness("sex", measure="demographic_parity", at_most=0.1),
        Fairness("sex", measure="equal_opportunity", at_most=0.1),
    ],
    online=Online(p99_ms=20, unknown_entity="refuse"),
    batch=Batch("@daily", sinks=["delta", "duckdb"], rows="day"),
    monitors=[Drift(window="30d")],
    owner="team:credit",
    description="Chance that a loan is repaid.",
)
