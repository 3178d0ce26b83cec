"""The one feature service: all that a run retrieves and the server reads."""

import views
from feast import FeatureService

recommendation = FeatureService(
    name="recommendation",
    features=[
        views.events,
        views.requests,
        views.user_profile,
        views.user_activity,
        views.item_content,
        views.item_activity,
        views.user_item,
        views.mailings,
        views.promotions,
    ],
)
