-- Bundles that a person carries to a node, at most one a node. They are not
-- published; what a node says that it took up becomes what is issued.
CREATE TABLE carried (
    node       TEXT PRIMARY KEY REFERENCES node (name) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    version    INTEGER NOT NULL REFERENCES version (id),
    envelope   BLOB NOT NULL
) STRICT;

CREATE INDEX carried_version ON carried (version);
