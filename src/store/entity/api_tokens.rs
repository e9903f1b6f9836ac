//! API tokens. `name` is the owner's or the service's. `scopes` are separated by spaces, `acts_for` by line
//! feeds (see `store::tokens`: an owner may contain spaces), `networks` and `secrets`
//! by spaces. `mac` covers the other columns, but for
//! `last_used_at`.

use sea_orm::entity::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "api_tokens")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: String,
    pub digest: Vec<u8>,
    pub kind: String,
    pub name: String,
    pub acts_for: String,
    pub scopes: String,
    pub label: String,
    pub created_at: i64,
    pub expires_at: Option<i64>,
    pub revoked_at: Option<i64>,
    pub mac: Vec<u8>,
    pub networks: String,
    pub secrets: String,
    pub last_used_at: Option<i64>,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
