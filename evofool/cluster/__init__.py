"""Workers through Ray. No other package imports Ray; it is imported only when workers are requested.

evaluator.py evaluates the orders of a search, tasks.py runs whole jobs; messages.py, jobs.py, worker.py, settings.py,
job_function.py, folder_transfer.py and folder_changes.py are independent of Ray.
"""
