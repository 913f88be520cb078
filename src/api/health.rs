//! gRPC's health service. Like etcd's, it knows one service: the server as a whole, with the empty name.
//!
//! A member that answers is serving. Readiness for clients is on the admin port (`/readyz`).

use std::{collections::HashMap, pin::Pin};

use futures_util::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status};

use crate::{
    node::NodeError,
    proto::health::{
        HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
        health_check_response::ServingStatus, health_server::Health,
    },
    shutdown::ShutdownSignal,
};

/// The name of the server as a whole.
const SERVER: &str = "";

#[derive(Debug)]
pub struct HealthService {
    pub shutdown: ShutdownSignal,
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        match request.get_ref().service.as_str() {
            SERVER => Ok(Response::new(response(ServingStatus::Serving))),
            _ => Err(Status::not_found("unknown service")),
        }
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// An unknown service is no error here: gRPC allows it to appear later.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.get_ref().service == SERVER;
        let now = if known { ServingStatus::Serving } else { ServingStatus::ServiceUnknown };
        let mut shutdown = self.shutdown.clone();
        let end = stream::once(async move {
            shutdown.wait().await;
            let last =
                if known { ServingStatus::NotServing } else { ServingStatus::ServiceUnknown };
            stream::iter([Ok(response(last)), Err(NodeError::Stopped.into())])
        });
        Ok(Response::new(Box::pin(stream::iter([Ok(response(now))]).chain(end.flatten()))))
    }

    async fn list(
        &self,
        _: Request<HealthListRequest>,
    ) -> Result<Response<HealthListResponse>, Status> {
        let statuses = HashMap::from([(SERVER.to_owned(), response(ServingStatus::Serving))]);
        Ok(Response::new(HealthListResponse { statuses }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shutdown::Shutdown;

    fn about(service: &str) -> Request<HealthCheckRequest> {
        Request::new(HealthCheckRequest { service: service.into() })
    }

    #[tokio::test]
    async fn only_the_server_as_a_whole_is_known() {
        let health = HealthService { shutdown: Shutdown::default().signal() };
        let serving = response(ServingStatus::Serving);
        assert_eq!(health.check(about("")).await.unwrap().into_inner(), serving);
        let refused = health.check(about("etcdserverpb.KV")).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (tonic::Code::NotFound, "unknown service"));
        let listed = health.list(Request::new(HealthListRequest {})).await.unwrap().into_inner();
        assert_eq!(listed.statuses, HashMap::from([(String::new(), serving)]));
    }

    #[tokio::test]
    async fn a_watch_reports_that_the_member_stops() {
        let shutdown = Shutdown::default();
        let health = HealthService { shutdown: shutdown.signal() };
        let mut watch = health.watch(about("")).await.unwrap().into_inner();
        assert_eq!(watch.next().await.unwrap().unwrap(), response(ServingStatus::Serving));
        shutdown.trigger();
        assert_eq!(watch.next().await.unwrap().unwrap(), response(ServingStatus::NotServing));
        let end = watch.next().await.unwrap().unwrap_err();
        assert_eq!(end.message(), "etcdserver: server stopped");
        assert!(watch.next().await.is_none());
    }
}
