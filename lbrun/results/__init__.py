"""What a run leaves behind: per-sample records, events, metrics, the verdict, the summary and the report.

Everything is written as the run goes or replaced in one step, so that a run that is killed at any moment
leaves readable files that say so.
"""
