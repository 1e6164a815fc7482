/**
 * An SLF4J 2 provider: what a program logs becomes events.
 *
 * <p>With this jar and slf4j-api on the path, nothing else is to be done where {@code WAFERMON_SERVICE} is set. A program
 * that opens its own SDK hands it over, so that events carry its spans:
 * {@code ((MonitoringLoggerFactory) LoggerFactory.getILoggerFactory()).use(sdk)}.
 */
package wafermon.sdk.slf4j;
