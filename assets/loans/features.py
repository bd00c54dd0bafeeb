"""What is known of an applicant at the moment of an application."""

from windrow import Entity, Source, feature_group

applicant = Entity("applicant", applicant_id="int64")

applications = Source(
    "applications",
    id="loan_id",
    event_time="applied_at",
    columns={
        "loan_id": "int64",
        "applicant_id": "int64",
        "amount": "float64",
        "term_months": "int64",
        "rate": "float64",
        "purpose": "string",
        "postcode": "string",
        "sex": "string",  # no feature: recorded so that the fairness gate can look
    },
    simulator="simulate:applications",
)
applicants = Source(
    "applicants",
    event_time="valid_from",
    known_at="entered_at",  # a change is entered days after it
    columns={
        "applicant_id": "int64",
        "income": "float64",
        "debt": "float64",
        "late_payments": "int64",
        "employed_years": "float64",
        "gap_months": "int64",
    },
    simulator="simulate:applicants",
)
settlements = Source(
    "settlements",
    id="loan_id",
    event_time="settled_at",
    columns={"loan_id": "int64", "repaid": "bool"},
    simulator="simulate:settlements",
)


@feature_group(applicant, checks="checks:ApplicantRecord", on_bad="quarantine", owner="team:credit")
def applicant_record(applicants):
    """Income (EUR a year), what debts take of it, late payments of two years, and work."""
    return applicants.select(
        "applicant_id",
        "income",
        "late_payments",
        "employed_years",
        "gap_months",
        debt_share=12 * applicants.debt / applicants.income,
    )
