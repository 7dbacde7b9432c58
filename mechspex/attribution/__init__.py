"""Attribution: one score a unit, how scores and functions are judged, and the sets that decide."""
