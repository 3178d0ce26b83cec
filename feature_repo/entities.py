"""What signals are about."""

from feast import Entity, ValueType

user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64, description="A household.")
item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64, description="A product.")
store = Entity(name="store", join_keys=["store_id"], value_type=ValueType.INT64, description="A shop.")
