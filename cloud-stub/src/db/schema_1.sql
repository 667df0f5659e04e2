-- Names are DNS labels, times milliseconds since 1970, generations and event
-- numbers grow for ever.

CREATE TABLE customer (
    name       TEXT PRIMARY KEY,
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE project (
    name       TEXT PRIMARY KEY,
    customer   TEXT NOT NULL REFERENCES customer (name),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE application (
    name       TEXT PRIMARY KEY,
    project    TEXT NOT NULL REFERENCES project (name),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE node (
    name         TEXT PRIMARY KEY,
    project      TEXT NOT NULL REFERENCES project (name),
    product_type TEXT NOT NULL,
    architecture TEXT NOT NULL,
    labels       TEXT NOT NULL, -- JSON object
    token        TEXT NOT NULL, -- in the clear: `node config` prints it again
    created_at   INTEGER NOT NULL,
    online        INTEGER NOT NULL DEFAULT 0,
    last_seen     INTEGER,
    offline_since INTEGER,
    status        TEXT -- the last NodeStatus, JSON
) STRICT;

-- Outlives the node: a gateway whose node was removed and added again still
-- refuses generations that it has seen.
CREATE TABLE generation (
    node TEXT PRIMARY KEY,
    last INTEGER NOT NULL
) STRICT;

CREATE TABLE image (
    reference    TEXT NOT NULL,
    architecture TEXT NOT NULL,
    info         TEXT NOT NULL, -- ImageInfo, JSON
    imported_at  INTEGER NOT NULL,
    PRIMARY KEY (reference, architecture)
) STRICT;

CREATE TABLE version (
    id          INTEGER PRIMARY KEY,
    application TEXT NOT NULL REFERENCES application (name),
    x INTEGER NOT NULL, y INTEGER NOT NULL, z INTEGER NOT NULL, build INTEGER NOT NULL,
    package     TEXT NOT NULL, -- VersionPackage, JSON
    created_at  INTEGER NOT NULL,
    UNIQUE (application, x, y, z, build)
) STRICT;

-- Build numbers are not given twice, even when a version was removed.
CREATE TABLE build (
    application TEXT NOT NULL,
    x INTEGER NOT NULL, y INTEGER NOT NULL, z INTEGER NOT NULL,
    last INTEGER NOT NULL,
    PRIMARY KEY (application, x, y, z)
) STRICT;

-- Images as they were when the version was created: a version is immutable,
-- whatever is imported under the same name later.
CREATE TABLE version_image (
    version      INTEGER NOT NULL REFERENCES version (id) ON DELETE CASCADE,
    reference    TEXT NOT NULL,
    architecture TEXT NOT NULL,
    info         TEXT NOT NULL,
    PRIMARY KEY (version, reference, architecture)
) STRICT;

-- What each node shall run.
CREATE TABLE assignment (
    node        TEXT NOT NULL REFERENCES node (name) ON DELETE CASCADE,
    application TEXT NOT NULL,
    version     INTEGER NOT NULL REFERENCES version (id),
    PRIMARY KEY (node, application)
) STRICT;

CREATE INDEX assignment_version ON assignment (version);

-- The newest envelope of each node, published again at each connection.
CREATE TABLE issued (
    node       TEXT PRIMARY KEY REFERENCES node (name) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    envelope   BLOB NOT NULL
) STRICT;

CREATE TABLE rollout (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    application TEXT NOT NULL,
    number      TEXT NOT NULL,
    selector    TEXT NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT;

CREATE TABLE rollout_node (
    rollout    INTEGER NOT NULL REFERENCES rollout (id),
    node       TEXT NOT NULL REFERENCES node (name) ON DELETE CASCADE,
    site       TEXT, -- whose nodes take turns
    generation INTEGER NOT NULL,
    PRIMARY KEY (rollout, node)
) STRICT;

CREATE INDEX rollout_node_node ON rollout_node (node);

-- Bundles that wait for their turn, at most one a node.
CREATE TABLE queued (
    node       TEXT PRIMARY KEY REFERENCES node (name) ON DELETE CASCADE,
    rollout    INTEGER NOT NULL REFERENCES rollout (id),
    site       TEXT NOT NULL,
    generation INTEGER NOT NULL,
    envelope   BLOB NOT NULL
) STRICT;

CREATE TABLE event (
    node  TEXT NOT NULL REFERENCES node (name) ON DELETE CASCADE,
    seq   INTEGER NOT NULL,
    kind  TEXT NOT NULL,
    event TEXT NOT NULL, -- Event, JSON
    PRIMARY KEY (node, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE event_mark (
    node    TEXT PRIMARY KEY REFERENCES node (name) ON DELETE CASCADE,
    seq     INTEGER NOT NULL, -- all up to here are stored, or will never come
    missing INTEGER NOT NULL  -- numbers below it that never came
) STRICT;
