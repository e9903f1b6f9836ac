"""An example consumer of rekey's log `changes` (see events.md): it gets each event once and in order, and verifies it.

    AMQP_URL=amqp://… REKEY_URL=http://… REKEY_TOKEN=rekey_… python3 consumer.py
Change `handle` to what you need. REKEY_TOKEN is a service token for all owners (`--act-for '*' --scope events:read`);
with it, the consumer fetches from the log what the queue has missed. Needs pika (`pip install pika`).
"""
import collections
import hashlib
import json
import os
import pathlib
import sys
import time
import urllib.request

import pika.exceptions

EXCHANGE = os.environ.get("EXCHANGE", "secrets.events")
QUEUE = os.environ.get("QUEUE", "example.consumer")
STATE = pathlib.Path(os.environ.get("STATE_FILE", "consumer-state.json"))


class Alarm(Exception):
    """The log contradicts itself. Find out why before you rely on it again."""


def canonical(event):  # RFC 8785, as far as these events need it: ASCII names, whole numbers
    return json.dumps(event, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def computed_hash(event):
    plain = {name: value for name, value in event.items() if name not in ("hash", "prev_hash")}
    return hashlib.blake2b(bytes.fromhex(event["prev_hash"]) + canonical(plain), digest_size=32).hexdigest()


def handle(event):  # a crash can bring the last event again: make it harmless to handle it twice
    print(canonical(event).decode(), flush=True)


class Follower:
    def __init__(self):
        self.seen, self.last = collections.OrderedDict(), None  # (epoch, position) → hash, and the newest
        if STATE.exists():
            *at, kept = json.loads(STATE.read_text())
            self.last, self.seen[tuple(at)] = tuple(at), kept

    def take(self, event):
        at = (event["epoch"], event["position"])
        if computed_hash(event) != event["hash"]:
            raise Alarm(f"the hash of {at} is wrong")
        if self.seen.get(at, event["hash"]) != event["hash"]:
            raise Alarm(f"{at} comes again and differs")
        while self.last and at[0] == self.last[0] and at[1] > self.last[1] + 1:
            self.fetch_what_is_missing()
        if self.last and at <= self.last:
            return  # a repeat
        # A higher epoch is a new start, and so is the first event of all.
        if self.last and at[0] == self.last[0] and event["prev_hash"] != self.seen[self.last]:
            raise Alarm(f"{at} does not follow what came before it")
        handle(event)
        self.seen[at], self.last = event["hash"], at
        if len(self.seen) > 10_000:  # they are kept to compare repeats with
            self.seen.popitem(last=False)
        new = STATE.with_suffix(".new")
        new.write_text(json.dumps([*at, event["hash"]]))
        new.replace(STATE)

    def fetch_what_is_missing(self):
        print(f"a gap after {self.last}: asking the log", file=sys.stderr)
        url = f"{os.environ['REKEY_URL']}/api/v1/events?limit=1000&after={self.last[0]}-{self.last[1]}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {os.environ['REKEY_TOKEN']}"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            events = json.load(answer)["events"]
        if not events:
            raise Alarm(f"the log has nothing after {self.last}")
        for event in events:
            self.take(event)


def consume(follower):
    with pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"])) as connection:
        channel = connection.channel()
        channel.exchange_declare(EXCHANGE, "topic", durable=True)
        channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_bind(QUEUE, EXCHANGE, "secret.#")
        channel.basic_qos(prefetch_count=256)
        for method, _, body in channel.consume(QUEUE):
            follower.take(json.loads(body))
            channel.basic_ack(method.delivery_tag)  # only now: without it, the event comes again


if __name__ == "__main__":
    follower = Follower()
    while True:
        try:
            consume(follower)
        except (pika.exceptions.AMQPError, OSError) as error:
            print(f"trying again in a second: {error!r}", file=sys.stderr)
            time.sleep(1)
