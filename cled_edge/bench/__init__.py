"""The instrument behind `cled-edge bench`: what the machine is, what a run took of it, how sure a difference is."""
