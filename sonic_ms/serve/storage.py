"""How many bytes of files each tenant has: counted with the rows that know them, in the same transaction."""


def count(connection, tenant, uploads=0, results=0):
    """Bytes that came, or went where they are negative."""
    connection.execute(
        "INSERT INTO storage VALUES (?, ?, ?) ON CONFLICT (tenant) DO UPDATE SET "
        "uploads = storage.uploads + excluded.uploads, results = storage.results + excluded.results",
        (tenant, uploads, results),
    )


def used(database, tenant=None):
    """{"uploads", "results"} in bytes, of a tenant or of all."""
    where, values = ("WHERE tenant = ?", (tenant,)) if tenant else ("", ())
    row = database.row(
        "SELECT CAST(coalesce(sum(uploads), 0) AS BIGINT) AS uploads, "
        f"CAST(coalesce(sum(results), 0) AS BIGINT) AS results FROM storage {where}", *values,
    )  # fmt: skip
    return {"uploads": row["uploads"], "results": row["results"]}
