//! The service whose requests are sampled.

use opentelemetry::Key;
use opentelemetry_sdk::Resource;

use crate::semconv;

/// For whom a server is asked; what is not known is empty.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: String,
    /// Where it runs, in X-Ray's words.
    pub(super) platform: &'static str,
    /// The AWS resource that it is.
    pub(super) arn: String,
}

impl Service {
    pub(super) fn of(resource: &Resource) -> Self {
        let text = |key| {
            let value = resource.get(&Key::from_static_str(key));
            value.map(|value| value.to_string()).unwrap_or_default()
        };
        let platform = match text(semconv::CLOUD_PLATFORM).as_str() {
            "aws_ec2" => "AWS::EC2::Instance",
            "aws_ecs" => "AWS::ECS::Container",
            "aws_eks" => "AWS::EKS::Container",
            "aws_elastic_beanstalk" => "AWS::ElasticBeanstalk::Environment",
            "aws_lambda" => "AWS::Lambda::Function",
            _ => "",
        };
        let container = text(semconv::AWS_ECS_CONTAINER_ARN);
        let arn = if container.is_empty() { text(semconv::CLOUD_RESOURCE_ID) } else { container };
        Self { name: text(semconv::SERVICE_NAME), platform, arn }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::KeyValue;

    use super::*;

    #[test]
    fn a_service_is_what_its_resource_says() {
        let container = ("aws.ecs.container.arn", "arn:aws:ecs:eu-west-1:1:container/a");
        let function = ("cloud.resource_id", "arn:aws:lambda:eu-west-1:1:function:a");
        for (attributes, platform, arn) in [
            (vec![], "", ""),
            (vec![("cloud.platform", "aws_ec2")], "AWS::EC2::Instance", ""),
            (vec![("cloud.platform", "aws_ecs"), container], "AWS::ECS::Container", container.1),
            (vec![("cloud.platform", "aws_eks")], "AWS::EKS::Container", ""),
            (
                vec![("cloud.platform", "aws_elastic_beanstalk")],
                "AWS::ElasticBeanstalk::Environment",
                "",
            ),
            (vec![("cloud.platform", "aws_lambda"), function], "AWS::Lambda::Function", function.1),
            (vec![("cloud.platform", "gcp_cloud_run"), function, container], "", container.1),
        ] {
            let attributes = attributes.into_iter().chain([("service.name", "a")]);
            let attributes = attributes.map(|(key, value)| KeyValue::new(key, value));
            let resource = Resource::builder_empty().with_attributes(attributes).build();
            let Service { name, platform: found, arn: of } = Service::of(&resource);
            assert_eq!((&*name, found, &*of), ("a", platform, arn));
        }
    }
}
