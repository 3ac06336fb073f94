-- One row for each key that a tenant has had. A destroyed key leaves its number, which no other key may have.
CREATE TABLE tenant_keys (
    tenant  TEXT    NOT NULL,
    number  INTEGER NOT NULL,
    wrapped BLOB,
    PRIMARY KEY (tenant, number)
) STRICT, WITHOUT ROWID;
