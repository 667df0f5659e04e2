-- How layers are cut. Digests are their 32 bytes.

-- Where chunks are; the same one may be in several layers, and several times
-- in one.
CREATE TABLE chunk (
    digest     BLOB NOT NULL,
    layer      BLOB NOT NULL,
    offset     INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY (digest, layer, offset)
) STRICT, WITHOUT ROWID;

CREATE INDEX chunk_layer ON chunk (layer);

CREATE TABLE chunk_list (
    layer    BLOB NOT NULL,
    position INTEGER NOT NULL,
    digest   BLOB NOT NULL,
    bytes    BLOB NOT NULL, -- ChunkList, as it travels
    PRIMARY KEY (layer, position)
) STRICT;

CREATE INDEX chunk_list_digest ON chunk_list (digest);

-- What nodes said before they told of this.
UPDATE node SET status = json_set(status, '$.flash',
    json('{"layer_bytes": 0, "state_bytes": 0, "log_bytes": 0}'))
WHERE status IS NOT NULL;
