"""What serve.py stands on: a bounded number of connections that end well, and metrics.

Nothing in here knows of models.
"""

import asyncio
import bisect
import collections
import itertools
import math
import time

# --- Connections: how many, for how long, and what becomes of them in the end. ---


class Connection(asyncio.Protocol):
    """A connection of aiohttp's with a clock for its client.

    The clock runs while the client has to do something, which is to send the head of a request or
    to read an answer, and stands while a request is in hand: bodies have a clock of their own.
    """

    def __init__(self, gate, protocol):
        self._gate, self.protocol, self._transport, self._clock = gate, protocol, None, None
        self.idle = True

    def connection_made(self, transport):
        """Begins to wait for the first request."""
        self._transport = transport
        self.protocol.connection_made(transport)
        self.wait()

    def wait(self):
        """It is the client's turn."""
        self.stop()
        self.idle = True
        loop = asyncio.get_running_loop()
        self._clock = loop.call_later(self._gate.timeout, self.abort)

    def stop(self):
        """It is the server's turn."""
        self.idle = False
        if self._clock is not None:
            self._clock.cancel()

    def data_received(self, data):
        """Hands on what came."""
        self.idle = False
        self.protocol.data_received(data)

    def eof_received(self):
        """Hands it on."""
        return self.protocol.eof_received()

    def pause_writing(self):
        """Hands it on."""
        self.protocol.pause_writing()

    def resume_writing(self):
        """Hands it on."""
        self.protocol.resume_writing()

    def connection_lost(self, error):
        """Makes room for another one."""
        self.stop()
        self._gate.left(self)
        self.protocol.connection_lost(error)

    def close(self):
        """Ends it after what is being sent."""
        if self._transport is not None:
            self._transport.close()

    def abort(self):
        """Ends it at once."""
        if self._transport is not None:
            self._transport.abort()


class Gate:
    """Accepts connections for an aiohttp server, a bounded number of them, and drains them.

    What comes beyond that number waits in the kernel's queue until another connection ends.

    Args:
      listener: a bound socket.
      max_connections: `int`.
      timeout: `float`, seconds that a client may take for a head, and for reading an answer.
    """

    def __init__(self, listener, *, max_connections, timeout):
        self._listener, self._max, self._server = listener, max_connections, None
        self.timeout, self.draining = timeout, False
        self._open, self._tasks = {}, set()

    @property
    def connections(self):
        """How many are open."""
        return len(self._open)

    def of(self, request):
        """The connection of a request."""
        return self._open.get(request.protocol)

    def start(self, server):
        """Begins to listen, for an `aiohttp.web.Server`."""
        self._server = server
        self._listener.setblocking(False)
        self._listener.listen(128)
        self._watch()

    def _watch(self):
        asyncio.get_running_loop().add_reader(self._listener, self._accept)

    def _accept(self):
        loop = asyncio.get_running_loop()
        while len(self._open) < self._max:
            try:
                client, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # No descriptors left: those who wait are heard when there are.
                loop.remove_reader(self._listener)
                loop.call_later(0.5, self.left)
                return
            client.setblocking(False)
            connection = Connection(self, self._server())
            self._open[connection.protocol] = connection
            task = loop.create_task(
                loop.connect_accepted_socket(lambda made=connection: made, client)
            )
            self._tasks.add(task)  # The loop itself would let it be collected.
            task.add_done_callback(self._tasks.discard)
        loop.remove_reader(self._listener)

    def left(self, connection=None):
        """A connection has ended: there is room again."""
        if connection is not None:
            self._open.pop(connection.protocol, None)
        if not self.draining:
            self._watch()

    async def drain(self, seconds, grace=1.0):
        """Refuses new connections and waits for the others; how many were cut off.

        Args:
          seconds: `float`, after which those that are left are cut off.
          grace: `float`, seconds for which those without a request stay: one may be on its way.
        """
        end = time.monotonic() + seconds
        self.draining, self._max = True, math.inf
        self._accept()  # Who is in the kernel's queue believes to be connected.
        asyncio.get_running_loop().remove_reader(self._listener)
        self._listener.close()
        grace = time.monotonic() + min(grace, seconds / 2)
        while self._open and time.monotonic() < end:
            if time.monotonic() > grace:
                for connection in list(self._open.values()):
                    if connection.idle:
                        connection.close()
            await asyncio.sleep(0.02)
        cut = len(self._open)
        for connection in list(self._open.values()):
            connection.abort()
        return cut


# --- Metrics, in Prometheus's text format. ---


class Counter:
    """A number for each combination of labels."""

    kind = "counter"

    def __init__(self, name, what):
        self.name, self.what, self._values = name, what, collections.Counter()

    def add(self, amount=1, **labels):
        """Counts."""
        self._values[tuple(labels.items())] += amount

    def lines(self):
        """In Prometheus's text format."""
        for labels, value in sorted(self._values.items()):
            yield _line(self.name, labels, value)


class Histogram:
    """How many observations are at most as large as each bound, for each combination of labels."""

    kind = "histogram"

    def __init__(self, name, what, bounds):
        self.name, self.what, self._bounds, self._found = name, what, bounds, {}

    def observe(self, value, **labels):
        """Counts one observation."""
        counts = self._found.setdefault(tuple(labels.items()), [[0] * (len(self._bounds) + 1), 0.0])
        counts[0][bisect.bisect_left(self._bounds, value)] += 1
        counts[1] += value

    def lines(self):
        """In Prometheus's text format."""
        for labels, (counts, total) in sorted(self._found.items()):
            sums = list(itertools.accumulate(counts))
            for bound, count in zip([*self._bounds, "+Inf"], sums, strict=True):
                yield _line(f"{self.name}_bucket", (*labels, ("le", bound)), count)
            yield _line(f"{self.name}_sum", labels, total)
            yield _line(f"{self.name}_count", labels, sums[-1])


class Gauge:
    """A number that is asked for when it is wanted."""

    kind = "gauge"

    def __init__(self, name, what, value):
        self.name, self.what, self._value = name, what, value

    def lines(self):
        """In Prometheus's text format."""
        yield _line(self.name, (), self._value())


def _line(name, labels, value):
    # The values of labels are routes, statuses and bounds: nothing in them needs to be escaped.
    inside = ",".join(f'{key}="{label}"' for key, label in labels)
    return f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"
