"""What is known of a customer at each monthly snapshot."""

from windrow import CsvFile, Entity, Source, feature_group

FILE = "churn_telco.csv"  # one snapshot, from WINDROW_DATA; without it the simulator makes monthly ones

customer = Entity("customer", customer_id="string")

COLUMNS = {
    "customer_id": "customerID",
    "gender": "gender",
    "senior": "SeniorCitizen",
    "partner": "Partner",
    "dependents": "Dependents",
    "tenure_months": "tenure",
    "phone": "PhoneService",
    "lines": "MultipleLines",
    "internet": "InternetService",
    "security": "OnlineSecurity",
    "backup": "OnlineBackup",
    "protection": "DeviceProtection",
    "support": "TechSupport",
    "tv": "StreamingTV",
    "movies": "StreamingMovies",
    "contract": "Contract",
    "paperless": "PaperlessBilling",
    "payment_method": "PaymentMethod",
    "monthly_charges": "MonthlyCharges",
    "total_charges": "TotalCharges",
}
NUMBERS = {"senior": "int64", "tenure_months": "int64", "monthly_charges": "float64", "total_charges": "float64"}

snapshots = Source(
    "snapshots",
    event_time="snapshot",
    columns={name: NUMBERS.get(name, "string") for name in COLUMNS},
    file=CsvFile(FILE, columns=COLUMNS, constants={"snapshot": "2019-09-30"}),
    simulator="simulate:snapshots",
)
# The file says who left in the month after the snapshot, not on which day: the last one is certain.
left = Source(
    "left",
    event_time="ts",
    columns={"customer_id": "string"},
    file=CsvFile(FILE, columns={"customer_id": "customerID"}, constants={"ts": "2019-10-30"}, where={"Churn": "Yes"}),
    simulator="simulate:left",
)


@feature_group(customer, ttl="60d", checks="checks:CustomerAccount", on_bad="quarantine", owner="team:growth")
def customer_account(snapshots):
    """Contract, payment and charges (per month, in the currency of the bill)."""
    return snapshots.select(
        "customer_id",
        "contract",
        "paperless",
        "payment_method",
        "tenure_months",
        "monthly_charges",
        "total_charges",
        new=snapshots.tenure_months <= 6,
    )


@feature_group(customer, ttl="60d", owner="team:growth")
def customer_services(snapshots):
    """Services in use, and the household."""
    extras = [snapshots[name] == "Yes" for name in ("security", "backup", "protection", "support", "tv", "movies")]
    return snapshots.select(
        "customer_id",
        "senior",
        "partner",
        "dependents",
        "internet",
        "lines",
        "security",
        "support",
        extras=sum(extra.cast("int64") for extra in extras),
    )
