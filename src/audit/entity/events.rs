//! The events of both logs, as they were received.

use sea_orm::entity::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "audit_events")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub log: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub epoch: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i64,
    pub r#type: String,
    pub owner: Option<String>,
    pub secret_id: Option<Uuid>,
    pub sequence: Option<i64>,
    pub version: Option<i64>,
    pub occurred_at: i64,
    pub hash: Vec<u8>,
    pub prev_hash: Vec<u8>,
    pub body: Vec<u8>,
    pub traceparent: Option<String>,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
