# Programs that the tests run in processes of their own.
collect_ignore = ["bad_input.py", "strategy_cases.py", "processes.py", "stream.py", "workers.py"]
