"""The service: jobs over HTTP. `app.py` is the front, `jobs.py` the truth, `slots.py` what makes the videos.

A request becomes a row of `jobs` before anything else happens; a slot's thread claims it, gives it to its worker
(`worker.py`) and writes what comes of it into the row. HTTP only reads and writes rows and files.
"""
