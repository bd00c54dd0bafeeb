"""What is known of a customer."""

from windrow import Constant, CsvFile, Entity, Source, feature_group

customer = Entity("customer", customer_id="int64")
customers = Source(
    "customers",
    event_time=Constant("2024-01-31"),
    columns={"customer_id": "int64", "plan": "string", "visits": "int64"},
    file=CsvFile("customers.csv", columns={"customer_id": "id", "plan": "plan", "visits": "visits"}),
    simulator="simulate:customers",
)
returned = Source("returned", event_time="ts", columns={"customer_id": "int64"}, simulator="simulate:returned")


@feature_group(customer, checks="checks:Habits", owner="someone@example.org")
def habits(customers):
    """Plan and visits of the last month."""
    return customers.select("customer_id", "plan", "visits", often=customers.visits > 5)
