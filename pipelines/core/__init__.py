"""Runs stages over the chunks of a video, in one process or on Ray, with the same result.

`spec` says what stages, units and jobs are; `plan` lays a job out; `state` (with `jobstate` and `events`) decides what
runs next, as a pure state machine; `driver` feeds it and does what it says; `local` and `rayexec` are the two places
where stages run, by way of `worker`; `store` is the work folder that makes a stopped run continue; `progress` shows how
far it is. Only `rayexec` imports ray.
"""
