"""The command line that all Python clients of the interop test share; the driver's
contract.go describes it."""
import collections
import os
import sys
import threading

HEADERS = [("h", b"interop")]
Call = collections.namedtuple("Call", "bootstrap mode step topic argument")


def call():
    if len(sys.argv) != 6:
        sys.exit("usage: client BOOTSTRAP MODE STEP TOPIC ARGUMENT")
    return Call(*sys.argv[1:])


def login():
    """How to log in, over TLS: mechanism, user, password, token, ca. Empty: not at all."""
    if "INTEROP_LOGIN" not in os.environ:
        return {}
    with open(os.environ["INTEROP_LOGIN"], encoding="utf-8") as f:
        return dict(line.rstrip("\n").split("=", 1) for line in f)


def log_in(enter, refused):
    """Step login: enter does something that needs a login, and refused is what the client raises
    when it fails."""
    say("asking")
    try:
        enter()
    except refused as e:
        say("refused " + " ".join(repr(e).split()))
    else:
        say("in")


def records():
    """Gives key and value of each record on stdin."""
    for line in sys.stdin.buffer:
        yield line.rstrip(b"\n").split(b"\t", 1)


def transactions():
    """Gives the records and the end, commit or abort, of each transaction on stdin."""
    records = []
    for line in sys.stdin.buffer:
        key, tab, value = line.rstrip(b"\n").partition(b"\t")
        if tab:
            records.append((key, value))
            continue
        yield records, key.decode()
        records = []


def over(end):
    """Tells that a transaction has ended."""
    say({"commit": "committed", "abort": "aborted"}[end])


def ended():
    """Gives an event that is set when stdin ends."""
    event = threading.Event()

    def wait():
        while sys.stdin.buffer.read(4096):
            pass
        event.set()

    threading.Thread(target=wait, daemon=True).start()
    return event


def show(partition, offset, key, value, headers):
    line = b"%d\t%d\t%s\t%s" % (partition, offset, key, value)
    for name, content in headers or []:
        line += b"\t%s=%s" % (name.encode(), content)
    sys.stdout.buffer.write(line + b"\n")


def say(text):
    sys.stdout.buffer.write(b"# " + text.encode() + b"\n")
    sys.stdout.buffer.flush()


def flush():
    sys.stdout.buffer.flush()
