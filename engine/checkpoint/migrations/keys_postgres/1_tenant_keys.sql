-- One row for each key that a tenant has had. A destroyed key leaves its number, which no other key may have.
CREATE TABLE stepgraph_tenant_keys (
    tenant  TEXT   COLLATE "C" NOT NULL,
    number  BIGINT NOT NULL,
    wrapped BYTEA,
    PRIMARY KEY (tenant, number)
);
