-- Annotation layers, one row an annotation: a read table that follows records.

-- +goose Up

-- What annotations holds of a layer. The row of a deleted layer stays, so that a
-- late writer finds the version that it must not go behind.
CREATE TABLE annotation_layers (
	version    bigint  NOT NULL,
	count      integer NOT NULL,                         -- 0 also for a deleted layer
	deleted    boolean NOT NULL,
	collection text COLLATE "C" NOT NULL,
	did        text COLLATE "C" NOT NULL,
	rkey       text COLLATE "C" NOT NULL,
	PRIMARY KEY (collection, did, rkey)
) WITH (fillfactor = 90);

-- Texts cannot hold U+0000 here, and have U+FFFD in its place; the record's value has
-- it as it was written.
CREATE TABLE annotations (
	byte_start  bigint,
	byte_end    bigint,
	token_index bigint,
	confidence  bigint,
	ordinal     integer NOT NULL,
	collection  text COLLATE "C" NOT NULL,
	did         text COLLATE "C" NOT NULL,
	rkey        text COLLATE "C" NOT NULL,
	uuid        text COLLATE "C" NOT NULL,
	label       text COLLATE "C" NOT NULL,
	value       text COLLATE "C" NOT NULL,
	text        text COLLATE "C" NOT NULL,
	anchor_kind text COLLATE "C" NOT NULL,
	PRIMARY KEY (collection, did, rkey, ordinal)
);

-- +goose Down
DROP TABLE annotations, annotation_layers;
