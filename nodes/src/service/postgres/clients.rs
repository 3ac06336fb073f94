//! The tenants as the Express service keeps them, with settings of ours laid over its own.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value};
use sqlx::{Postgres, Transaction};
use stepgraph::TenantId;

use super::{
    PostgresRecords,
    stored::{corrupt, database, json, read_json, read_word, refused, text, word},
};
use crate::service::{
    Client, ClientSettings, ClientStatus, Clients, ModelName, ServiceError, Tier,
    records::{is_key, new_key},
};

/// The owner of clients that this program makes. No password has such a hash, so that nobody logs in as it.
const OWNER: &str = "stepgraph";
const NO_PASSWORD: &str = "!";

/// A row of `clients`. Columns that a deployment may lack have a default.
#[derive(Deserialize)]
struct SharedClient {
    id: String,
    public_api_key: String,
    status: String,
    #[serde(default)]
    tier: Option<String>,
    #[serde(default)]
    allowed_domains: Option<Vec<String>>,
    #[serde(default)]
    hourly_limit: Option<u64>,
    #[serde(default)]
    hard_cap_enabled: Option<bool>,
    #[serde(default)]
    overage_rate_cents: Option<u32>,
    #[serde(default)]
    alert_threshold: Option<f64>,
    #[serde(default)]
    alert_email: Option<String>,
}

/// The columns of `client_widgets` that say how a tenant is answered.
#[derive(Deserialize, Default)]
#[serde(default)]
struct SharedWidget {
    model: Option<String>,
    system_prompt: Option<String>,
    max_tokens: Option<u32>,
    temperature: Option<f32>,
}

#[derive(sqlx::FromRow)]
struct Row {
    client: Value,
    widget: Option<Value>,
    settings: Option<Value>,
    unlimited: bool,
}

/// A client with the settings that the shared tables give it, before ours.
struct Found {
    key: String,
    client: Client,
    shared: ClientSettings,
}

/// A share of one as whole per cent.
fn per_cent(share: f64) -> Option<u8> {
    (1..=100_u8).find(|per_cent| (f64::from(*per_cent) - share * 100.0).abs() < 0.5)
}

impl Row {
    fn found(self) -> Result<Found, ServiceError> {
        let client: SharedClient = read_json("clients", self.client)?;
        let widget: SharedWidget = self
            .widget
            .map(|widget| read_json("client_widgets", widget))
            .transpose()?
            .unwrap_or_default();
        let shared = ClientSettings {
            model: widget.model.map(ModelName::new),
            system_prompt: widget.system_prompt,
            max_tokens: widget.max_tokens,
            temperature: widget.temperature,
            allowed_domains: client.allowed_domains.unwrap_or_default(),
            hourly_limit: client.hourly_limit,
            hard_cap: client.hard_cap_enabled.unwrap_or_default(),
            overage_cents_per_hundred: client.overage_rate_cents,
            alert_threshold_percent: client.alert_threshold.and_then(per_cent),
            alert_email: client.alert_email,
            ..ClientSettings::default()
        };
        let settings = match self.settings {
            Some(ours) => laid_over(&shared, ours)?,
            None => shared.clone(),
        };
        let tier = client.tier.map_or(Ok(Tier::Free), |tier| read_word("tier", &tier))?;
        let client_made = Client {
            tenant: TenantId::authenticated(client.id).map_err(|error| corrupt(error.to_string()))?,
            tier,
            status: read_word("status", &client.status)?,
            unlimited: self.unlimited,
            settings,
        };
        Ok(Found {
            key: client.public_api_key,
            client: client_made,
            shared,
        })
    }
}

fn object(settings: &ClientSettings) -> Result<Map<String, Value>, ServiceError> {
    read_json("settings", json(settings)?)
}

/// The shared settings with ours over them; a null of ours takes one away.
fn laid_over(shared: &ClientSettings, ours: Value) -> Result<ClientSettings, ServiceError> {
    let mut all = object(shared)?;
    for (name, value) in read_json::<Map<String, Value>>("settings", ours)? {
        if value.is_null() {
            all.remove(&name);
        } else {
            all.insert(name, value);
        }
    }
    read_json("settings", Value::Object(all))
}

/// What has to be laid over the shared settings to make them `wanted`. What is the same stays out, so that a change at
/// the Express service is seen.
fn difference(shared: &ClientSettings, wanted: &ClientSettings) -> Result<Value, ServiceError> {
    let (shared, wanted) = (object(shared)?, object(wanted)?);
    let gone = shared.keys().filter(|name| !wanted.contains_key(*name));
    let mut ours: Map<String, Value> = gone.map(|name| (name.clone(), Value::Null)).collect();
    ours.extend(
        wanted
            .into_iter()
            .filter(|(name, value)| shared.get(name) != Some(value)),
    );
    Ok(Value::Object(ours))
}

impl PostgresRecords {
    async fn found(&self, tx: &mut Transaction<'_, Postgres>, id: &str) -> Result<Option<Found>, ServiceError> {
        sqlx::query_as::<_, Row>(
            "SELECT to_jsonb(c) AS client, to_jsonb(w) AS widget, s.settings, coalesce(s.unlimited, false) AS unlimited
             FROM clients c LEFT JOIN client_widgets w ON w.client_id = c.id
             LEFT JOIN stepgraph_tenant_settings s ON s.client_id = c.id WHERE c.id = $1",
        )
        .bind(id)
        .fetch_optional(&mut **tx)
        .await
        .map_err(database)?
        .map(Row::found)
        .transpose()
    }

    /// Writes `clients` itself: its owner's table.
    async fn write_client(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        client: &Client,
        is_known: bool,
    ) -> Result<(), ServiceError> {
        if client.tier == Tier::Paid && !self.shape.tier {
            return Err(refused(
                "`clients.tier` is not there: apply the migrations of the Express service first".to_owned(),
            ));
        }
        if !is_known {
            let owner: String = sqlx::query_scalar(
                "INSERT INTO users (username, password) VALUES ($1, $2)
                 ON CONFLICT (username) DO UPDATE SET username = excluded.username RETURNING id",
            )
            .bind(OWNER)
            .bind(NO_PASSWORD)
            .fetch_one(&mut **tx)
            .await
            .map_err(database)?;
            sqlx::query(
                "INSERT INTO clients (id, user_id, name, public_api_key, status) VALUES ($1, $2, $1, $3, 'active')
                 ON CONFLICT (id) DO NOTHING",
            )
            .bind(client.tenant.as_str())
            .bind(owner)
            .bind(new_key())
            .execute(&mut **tx)
            .await
            .map_err(database)?;
        }
        sqlx::query("UPDATE clients SET status = $2, allowed_domains = $3 WHERE id = $1")
            .bind(client.tenant.as_str())
            .bind(word(&client.status)?)
            .bind(json(&client.settings.allowed_domains)?)
            .execute(&mut **tx)
            .await
            .map_err(database)?;
        if self.shape.tier {
            sqlx::query("UPDATE clients SET tier = $2 WHERE id = $1")
                .bind(client.tenant.as_str())
                .bind(word(&client.tier)?)
                .execute(&mut **tx)
                .await
                .map_err(database)?;
        }
        Ok(())
    }

    async fn write_settings(
        &self,
        tx: &mut Transaction<'_, Postgres>,
        found: &Found,
        settings: &ClientSettings,
        unlimited: bool,
    ) -> Result<(), ServiceError> {
        sqlx::query(
            "INSERT INTO stepgraph_tenant_settings (client_id, settings, unlimited, updated_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (client_id) DO UPDATE SET settings = excluded.settings, unlimited = excluded.unlimited,
               updated_at = excluded.updated_at",
        )
        .bind(found.client.tenant.as_str())
        .bind(difference(&found.shared, settings)?)
        .bind(unlimited)
        .bind(self.now())
        .execute(&mut **tx)
        .await
        .map_err(database)?;
        Ok(())
    }
}

#[async_trait]
impl Clients for PostgresRecords {
    async fn by_key(&self, public_key: &str) -> Result<Option<Client>, ServiceError> {
        let row = sqlx::query_as::<_, Row>(
            "SELECT to_jsonb(c) AS client, to_jsonb(w) AS widget, s.settings, coalesce(s.unlimited, false) AS unlimited
             FROM clients c LEFT JOIN client_widgets w ON w.client_id = c.id
             LEFT JOIN stepgraph_tenant_settings s ON s.client_id = c.id WHERE c.public_api_key = $1",
        )
        .bind(text(public_key))
        .fetch_optional(&self.pool)
        .await
        .map_err(database)?;
        let found = row.map(Row::found).transpose()?;
        Ok(found
            .filter(|found| is_key(&found.key, public_key))
            .map(|found| found.client))
    }

    async fn by_id(&self, id: &str) -> Result<Option<Client>, ServiceError> {
        let mut tx = self.begin().await?;
        Ok(self.found(&mut tx, &text(id)).await?.map(|found| found.client))
    }

    async fn page(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<Client>, ServiceError> {
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT to_jsonb(c) AS client, to_jsonb(w) AS widget, s.settings, coalesce(s.unlimited, false) AS unlimited
             FROM clients c LEFT JOIN client_widgets w ON w.client_id = c.id
             LEFT JOIN stepgraph_tenant_settings s ON s.client_id = c.id
             WHERE $1::text IS NULL OR c.id > $1 ORDER BY c.id LIMIT $2",
        )
        .bind(after.map(TenantId::as_str))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await
        .map_err(database)?;
        rows.into_iter().map(|row| Ok(row.found()?.client)).collect()
    }

    /// Writes `clients` only where it has to, and only where it may.
    async fn put(&self, client: &Client) -> Result<String, ServiceError> {
        let id = client.tenant.as_str();
        let mut tx = self.begin().await?;
        let known = self.found(&mut tx, id).await?;
        let same = known.as_ref().is_some_and(|known| {
            let known = &known.client;
            (known.tier, known.status) == (client.tier, client.status)
        });
        if !same || self.may_write_clients().is_ok() {
            self.may_write_clients()?;
            self.write_client(&mut tx, client, known.is_some()).await?;
        }
        let Some(found) = self.found(&mut tx, id).await? else {
            return Err(corrupt(format!("the client `{id}` is gone as soon as it is written")));
        };
        self.write_settings(&mut tx, &found, &client.settings, client.unlimited)
            .await?;
        tx.commit().await.map_err(database)?;
        Ok(found.key)
    }

    async fn set(&self, tenant: &TenantId, settings: &ClientSettings) -> Result<bool, ServiceError> {
        let mut tx = self.begin().await?;
        let Some(found) = self.found(&mut tx, tenant.as_str()).await? else {
            return Ok(false);
        };
        self.write_settings(&mut tx, &found, settings, found.client.unlimited)
            .await?;
        tx.commit().await.map_err(database)?;
        Ok(true)
    }

    async fn set_status(&self, tenant: &TenantId, status: ClientStatus) -> Result<bool, ServiceError> {
        self.may_write_clients()?;
        let written = sqlx::query("UPDATE clients SET status = $2 WHERE id = $1")
            .bind(tenant.as_str())
            .bind(word(&status)?)
            .execute(&self.pool)
            .await
            .map_err(database)?;
        Ok(written.rows_affected() == 1)
    }

    async fn key(&self, tenant: &TenantId) -> Result<Option<String>, ServiceError> {
        sqlx::query_scalar("SELECT public_api_key FROM clients WHERE id = $1")
            .bind(tenant.as_str())
            .fetch_optional(&self.pool)
            .await
            .map_err(database)
    }

    async fn rotate_key(&self, tenant: &TenantId) -> Result<Option<String>, ServiceError> {
        self.may_write_clients()?;
        sqlx::query_scalar("UPDATE clients SET public_api_key = $2 WHERE id = $1 RETURNING public_api_key")
            .bind(tenant.as_str())
            .bind(new_key())
            .fetch_optional(&self.pool)
            .await
            .map_err(database)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_hold_what_differs_and_nothing_that_is_shared() {
        let shared = ClientSettings {
            model: Some(ModelName::new("gpt-4o-mini")),
            temperature: Some(0.7),
            hard_cap: true,
            ..ClientSettings::default()
        };
        let wanted = ClientSettings {
            temperature: Some(0.7),
            model: Some(ModelName::new("gpt-4o")),
            search_limit: Some(3),
            ..ClientSettings::default()
        };

        let ours = difference(&shared, &wanted).unwrap();

        assert_eq!(
            ours,
            serde_json::json!({"model": "gpt-4o", "searchLimit": 3, "hardCap": null})
        );
        assert_eq!(laid_over(&shared, ours).unwrap(), wanted);
        assert_eq!(difference(&shared, &shared).unwrap(), serde_json::json!({}));
    }

    #[test]
    fn a_share_is_read_as_whole_per_cent() {
        assert_eq!(
            (per_cent(0.8), per_cent(1.0), per_cent(0.0), per_cent(7.0)),
            (Some(80), Some(100), None, None)
        );
    }
}
