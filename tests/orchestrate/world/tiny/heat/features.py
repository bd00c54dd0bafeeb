"""What is known of a room."""

from windrow import Entity, Every, Source, feature_group

room = Entity("room", room="string")
readings = Source(
    "readings", event_time="ts", columns={"room": "string", "degrees": "float64"}, simulator="simulate:readings"
)
ticks = Every("6h", room)


@feature_group(room, ttl="1d")
def heat_now(readings):
    """The newest reading."""
    return readings.select("room", "degrees")


@feature_group(room, online=True)
def heat_range(heat_now):
    """A group that reads a group."""
    return heat_now.select("room", fahrenheit=heat_now.degrees * 1.8 + 32)
