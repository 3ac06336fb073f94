//! The tenants as the operator knows them.

use async_trait::async_trait;
use sqlx::{Sqlite, Transaction};
use stepgraph::TenantId;

use super::{
    SqliteRecords,
    stored::{corrupt, database, json, read_json, read_word, word},
};
use crate::service::{
    Client, ClientSettings, ClientStatus, Clients, ModelName, ServiceError,
    records::{is_key, new_key},
};

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    public_api_key: String,
    tier: String,
    status: String,
    model: Option<String>,
    system_prompt: Option<String>,
    allowed_domains: String,
    unlimited: bool,
    settings: Option<String>,
}

impl Row {
    fn client(self) -> Result<Client, ServiceError> {
        let settings = self.settings.as_deref().map(|text| read_json("settings", text));
        Ok(Client {
            tenant: TenantId::authenticated(self.id).map_err(|error| corrupt(error.to_string()))?,
            tier: read_word("tier", &self.tier)?,
            status: read_word("status", &self.status)?,
            unlimited: self.unlimited,
            settings: ClientSettings {
                model: self.model.map(ModelName::new),
                system_prompt: self.system_prompt,
                allowed_domains: read_json("allowed_domains", &self.allowed_domains)?,
                ..settings.transpose()?.unwrap_or_default()
            },
        })
    }
}

/// Writes how a client is served; says whether there is one.
async fn write_settings(
    tx: &mut Transaction<'_, Sqlite>,
    tenant: &TenantId,
    settings: &ClientSettings,
    now: &str,
) -> Result<bool, ServiceError> {
    let written = sqlx::query("UPDATE clients SET allowed_domains = ? WHERE id = ?")
        .bind(json(&settings.allowed_domains)?)
        .bind(tenant.as_str())
        .execute(&mut **tx)
        .await
        .map_err(database)?;
    if written.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "INSERT INTO client_widgets (client_id, model, system_prompt, updated_at) VALUES (?, ?, ?, ?)
         ON CONFLICT (client_id) DO UPDATE SET model = excluded.model, system_prompt = excluded.system_prompt,
           updated_at = excluded.updated_at",
    )
    .bind(tenant.as_str())
    .bind(settings.model.as_ref().map(ModelName::as_str))
    .bind(settings.system_prompt.as_deref())
    .bind(now)
    .execute(&mut **tx)
    .await
    .map_err(database)?;
    sqlx::query(
        "INSERT INTO tenant_settings (client_id, settings, updated_at) VALUES (?, ?, ?)
         ON CONFLICT (client_id) DO UPDATE SET settings = excluded.settings, updated_at = excluded.updated_at",
    )
    .bind(tenant.as_str())
    .bind(json(settings)?)
    .bind(now)
    .execute(&mut **tx)
    .await
    .map_err(database)?;
    Ok(true)
}

#[async_trait]
impl Clients for SqliteRecords {
    async fn by_key(&self, public_key: &str) -> Result<Option<Client>, ServiceError> {
        sqlx::query_as::<_, Row>(
            "SELECT c.*, w.model, w.system_prompt, s.settings FROM clients c
             LEFT JOIN client_widgets w ON w.client_id = c.id LEFT JOIN tenant_settings s ON s.client_id = c.id
             WHERE c.public_api_key = ?",
        )
        .bind(public_key)
        .fetch_optional(&self.pool)
        .await
        .map_err(database)?
        .filter(|row| is_key(&row.public_api_key, public_key))
        .map(Row::client)
        .transpose()
    }

    async fn by_id(&self, id: &str) -> Result<Option<Client>, ServiceError> {
        sqlx::query_as::<_, Row>(
            "SELECT c.*, w.model, w.system_prompt, s.settings FROM clients c
             LEFT JOIN client_widgets w ON w.client_id = c.id LEFT JOIN tenant_settings s ON s.client_id = c.id
             WHERE c.id = ?",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await
        .map_err(database)?
        .map(Row::client)
        .transpose()
    }

    async fn page(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<Client>, ServiceError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT c.*, w.model, w.system_prompt, s.settings FROM clients c
             LEFT JOIN client_widgets w ON w.client_id = c.id LEFT JOIN tenant_settings s ON s.client_id = c.id
             WHERE ?1 IS NULL OR c.id > ?1 ORDER BY c.id LIMIT ?2",
        )
        .bind(after.map(TenantId::as_str))
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        rows.into_iter().map(Row::client).collect()
    }

    async fn put(&self, client: &Client) -> Result<String, ServiceError> {
        let now = self.now_text();
        let mut tx = self.write_lock().await?;
        let key: String = sqlx::query_scalar(
            "INSERT INTO clients (id, public_api_key, allowed_domains, status, tier, unlimited, created_at)
             VALUES (?, ?, '[]', ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET status = excluded.status, tier = excluded.tier,
               unlimited = excluded.unlimited
             RETURNING public_api_key",
        )
        .bind(client.tenant.as_str())
        .bind(new_key())
        .bind(word(&client.status)?)
        .bind(word(&client.tier)?)
        .bind(client.unlimited)
        .bind(&now)
        .fetch_one(&mut *tx)
        .await
        .map_err(database)?;
        write_settings(&mut tx, &client.tenant, &client.settings, &now).await?;
        tx.commit().await.map_err(database)?;
        Ok(key)
    }

    async fn set(&self, tenant: &TenantId, settings: &ClientSettings) -> Result<bool, ServiceError> {
        let mut tx = self.write_lock().await?;
        let is_known = write_settings(&mut tx, tenant, settings, &self.now_text()).await?;
        tx.commit().await.map_err(database)?;
        Ok(is_known)
    }

    async fn set_status(&self, tenant: &TenantId, status: ClientStatus) -> Result<bool, ServiceError> {
        let written = sqlx::query("UPDATE clients SET status = ? WHERE id = ?")
            .bind(word(&status)?)
            .bind(tenant.as_str())
            .execute(&self.pool)
            .await
            .map_err(database)?;
        Ok(written.rows_affected() == 1)
    }

    async fn key(&self, tenant: &TenantId) -> Result<Option<String>, ServiceError> {
        sqlx::query_scalar("SELECT public_api_key FROM clients WHERE id = ?")
            .bind(tenant.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(database)
    }

    async fn rotate_key(&self, tenant: &TenantId) -> Result<Option<String>, ServiceError> {
        sqlx::query_scalar("UPDATE clients SET public_api_key = ? WHERE id = ? RETURNING public_api_key")
            .bind(new_key())
            .bind(tenant.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(database)
    }
}
