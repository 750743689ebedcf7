"""The tables of a ledger in PostgreSQL, as the migrations that lead from each version to the next.

They are executed with `search_path` set to the ledger's schema.
"""

# The values of columns that are about the wait for one id, when that wait begins or ends.
NO_WAIT = "due_at = NULL, waited_by = NULL, trouble = NULL, trouble_count = 0, trouble_since = NULL"

_VERSION_1 = """
CREATE TABLE ledger_version (version integer NOT NULL);
INSERT INTO ledger_version VALUES (0);

CREATE TABLE tasks (
    task_id text PRIMARY KEY,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'saved', 'failed')),
    details text, error text, route text, origin text,
    added_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE songs (
    position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    music_task_id text NOT NULL UNIQUE,
    state text NOT NULL DEFAULT 'wanted' CHECK (
        state IN ('wanted', 'submitting', 'submitted', 'in_doubt', 'failed', 'kept')
    ),
    task_id text REFERENCES tasks, route text, origin text,
    claimed_by text, claim_key text, claimed_at timestamptz, attempt integer NOT NULL DEFAULT 0,
    due_at timestamptz, waited_by text,
    trouble text CHECK (trouble IN ('unfinished', 'missing', 'gone')),
    trouble_count integer NOT NULL DEFAULT 0, trouble_since timestamptz,
    reason text,
    added_at timestamptz NOT NULL DEFAULT now(), changed_at timestamptz NOT NULL DEFAULT now(),
    CHECK (task_id IS NOT NULL OR state NOT IN ('submitted', 'kept'))
);
CREATE INDEX songs_by_state ON songs (state, position);
CREATE INDEX songs_by_task ON songs (task_id);

-- The ids of each song. A wrong one belongs to another song.
CREATE TABLE song_tasks (
    number bigint GENERATED ALWAYS AS IDENTITY,
    music_task_id text NOT NULL REFERENCES songs (music_task_id),
    task_id text NOT NULL REFERENCES tasks,
    is_wrong boolean NOT NULL DEFAULT false,
    PRIMARY KEY (music_task_id, task_id)
);
CREATE INDEX song_tasks_by_task ON song_tasks (task_id);

-- Open ledgers that wait for songs, each with the end of its lease.
CREATE TABLE claimants (name text PRIMARY KEY, alive_until timestamptz NOT NULL);

CREATE TABLE callback_secrets (
    number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    secret text NOT NULL, added_at timestamptz NOT NULL DEFAULT now()
);

-- The song is empty if a callback came at a URL of no song.
CREATE TABLE candidates (
    number bigint GENERATED ALWAYS AS IDENTITY,
    task_id text NOT NULL, music_task_id text NOT NULL, route text NOT NULL, origin text NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (task_id, music_task_id, route, origin)
);
"""

MIGRATIONS = (_VERSION_1,)
