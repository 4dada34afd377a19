"""A Flower app: hospitals that train together on breast-cancer records."""
