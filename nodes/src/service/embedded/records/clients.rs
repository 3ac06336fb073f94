//! The tenants as the operator knows them.

use async_trait::async_trait;
use stepgraph::TenantId;
use uuid::Uuid;

use super::{
    SqliteRecords,
    stored::{corrupt, database, json, read_json, read_word, word},
};
use crate::service::{Client, Clients, ModelName, ServiceError};

/// What a public key begins with.
const KEY_PREFIX: &str = "pk_live_";

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    tier: String,
    status: String,
    model: Option<String>,
    system_prompt: Option<String>,
    allowed_domains: String,
    unlimited: bool,
}

impl Row {
    fn client(self) -> Result<Client, ServiceError> {
        Ok(Client {
            tenant: TenantId::authenticated(self.id).map_err(|error| corrupt(error.to_string()))?,
            tier: read_word("tier", &self.tier)?,
            status: read_word("status", &self.status)?,
            model: self.model.map(ModelName::new),
            system_prompt: self.system_prompt,
            allowed_domains: read_json("allowed_domains", &self.allowed_domains)?,
            unlimited: self.unlimited,
        })
    }
}

/// A key that cannot be guessed: 244 random bits.
fn new_key() -> String {
    format!("{KEY_PREFIX}{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

#[async_trait]
impl Clients for SqliteRecords {
    async fn by_key(&self, public_key: &str) -> Result<Option<Client>, ServiceError> {
        sqlx::query_as::<_, Row>(
            "SELECT c.id, c.tier, c.status, w.model, w.system_prompt, c.allowed_domains, c.unlimited
             FROM clients c LEFT JOIN client_widgets w ON w.client_id = c.id WHERE c.public_api_key = ?",
        )
        .bind(public_key)
        .fetch_optional(&self.pool)
        .await
        .map_err(database)?
        .map(Row::client)
        .transpose()
    }

    async fn by_id(&self, id: &str) -> Result<Option<Client>, ServiceError> {
        sqlx::query_as::<_, Row>(
            "SELECT c.id, c.tier, c.status, w.model, w.system_prompt, c.allowed_domains, c.unlimited
             FROM clients c LEFT JOIN client_widgets w ON w.client_id = c.id WHERE c.id = ?",
        )
        .bind(id)
        .fetch_optional(&self.pool)
        .await
        .map_err(database)?
        .map(Row::client)
        .transpose()
    }

    async fn put(&self, client: &Client) -> Result<String, ServiceError> {
        let now = self.now_text();
        let mut tx = self.write_lock().await?;
        let key: String = sqlx::query_scalar(
            "INSERT INTO clients (id, public_api_key, allowed_domains, status, tier, unlimited, created_at)
             VALUES (?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT (id) DO UPDATE SET allowed_domains = excluded.allowed_domains, status = excluded.status,
               tier = excluded.tier, unlimited = excluded.unlimited
             RETURNING public_api_key",
        )
        .bind(client.tenant.as_str())
        .bind(new_key())
        .bind(json(&client.allowed_domains)?)
        .bind(word(&client.status)?)
        .bind(word(&client.tier)?)
        .bind(client.unlimited)
        .bind(&now)
        .fetch_one(&mut *tx)
        .await
        .map_err(database)?;
        sqlx::query(
            "INSERT INTO client_widgets (client_id, model, system_prompt, updated_at) VALUES (?, ?, ?, ?)
             ON CONFLICT (client_id) DO UPDATE SET model = excluded.model, system_prompt = excluded.system_prompt,
               updated_at = excluded.updated_at",
        )
        .bind(client.tenant.as_str())
        .bind(client.model.as_ref().map(ModelName::as_str))
        .bind(client.system_prompt.as_deref())
        .bind(&now)
        .execute(&mut *tx)
        .await
        .map_err(database)?;
        tx.commit().await.map_err(database)?;
        Ok(key)
    }
}
