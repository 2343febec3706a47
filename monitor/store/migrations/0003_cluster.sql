-- What was last told of each watched object, which scopes were listed whole, and the model
-- events, committed together with the states and then forwarded to the bus. Instants are
-- seconds since the epoch, UTC; state and data are JSON.

-- dialect: postgresql
CREATE TABLE cluster_state (
    cluster text NOT NULL,
    uid text NOT NULL,
    kind text NOT NULL,
    namespace text NOT NULL,
    name text NOT NULL,
    state text NOT NULL,
    updated_at double precision NOT NULL,
    PRIMARY KEY (cluster, uid)
);

CREATE INDEX cluster_state_scope ON cluster_state (cluster, kind, namespace);

CREATE TABLE cluster_scope (
    cluster text NOT NULL,
    kind text NOT NULL,
    namespace text NOT NULL,
    selector text NOT NULL,
    listed_at double precision NOT NULL,
    PRIMARY KEY (cluster, kind, namespace)
);

CREATE TABLE model_event (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id text NOT NULL UNIQUE,
    cluster text NOT NULL,
    type text NOT NULL,
    source text NOT NULL,
    key text NOT NULL,
    time double precision NOT NULL,
    data text NOT NULL,
    forwarded_at double precision
);

CREATE INDEX model_event_waiting ON model_event (cluster, seq) WHERE forwarded_at IS NULL;
CREATE INDEX model_event_time ON model_event (time);

-- dialect: sqlite
CREATE TABLE cluster_state (
    cluster TEXT NOT NULL,
    uid TEXT NOT NULL,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    name TEXT NOT NULL,
    state TEXT NOT NULL,
    updated_at REAL NOT NULL,
    PRIMARY KEY (cluster, uid)
) WITHOUT ROWID;

CREATE INDEX cluster_state_scope ON cluster_state (cluster, kind, namespace);

CREATE TABLE cluster_scope (
    cluster TEXT NOT NULL,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    selector TEXT NOT NULL,
    listed_at REAL NOT NULL,
    PRIMARY KEY (cluster, kind, namespace)
) WITHOUT ROWID;

CREATE TABLE model_event (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    cluster TEXT NOT NULL,
    type TEXT NOT NULL,
    source TEXT NOT NULL,
    key TEXT NOT NULL,
    time REAL NOT NULL,
    data TEXT NOT NULL,
    forwarded_at REAL
);

CREATE INDEX model_event_waiting ON model_event (cluster, seq) WHERE forwarded_at IS NULL;
CREATE INDEX model_event_time ON model_event (time);
