"""The fault suite: scenarios in which servers, networks and the client itself fail under real runs.

``python -m lbrun.faults`` runs the catalogue against the installed lbrun and prints what was lost.
"""
