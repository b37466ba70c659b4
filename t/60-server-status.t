#!/usr/bin/perl
# Guards: the message server tells Prometheus and people what it does: calls by result, connections by kind, the directory's age, certificates; it is ready when it can do its work and says why when it cannot.
use strict;
use warnings;
use HyperMesh;
use HyperTest;
use Test::More;

my $m = mesh(hyper => { 'hd-1' => qq(metrics = { bind_address = "localhost:0"; };\n) });
my $d = $m->{'hd-1'};
my $base = 'http://127.0.0.1:' . $d->ready('metrics_port');
my $c = certs();

sub get {
	my ($path) = @_;
	my ($exit, $out) = run_program([ 'curl', '-sS', '--noproxy', '*', '-i', '--max-time', 10 * HyperTest::slow_factor(), "$base$path" ]);
	my ($head, $body) = split /\r\n\r\n/, $out, 2;
	return ($head =~ m{^HTTP/1\.1 (\d+)} ? $1 : "curl $exit", $head, $body);
}
sub metric {
	my (undef, undef, $text) = get('/metrics');
	return $text =~ /^\Q$_[0]\E (\S+)$/m ? $1 : undef;
}

is($m->ping->{result}{serverInfo}{name}, 'hd-2', 'a call goes out');
is($m->call('hd-2.nothing')->{http}, 400, 'one that is refused');
is($m->call('nobody.echo')->{http}, 400, 'one to nobody');

my ($status, $head, $text) = get('/metrics');
is($status, 200);
my %help = map { $_ => 1 } $text =~ /^# HELP (\w+) /mg;
my %type = map { $_ => 1 } $text =~ /^# TYPE (\w+) (?:counter|gauge|histogram)$/mg;
my %value = map { s/_(?:bucket|sum|count)$//r => 1 } $text =~ /^(\w+)(?:\{[^}]*\})? [-+0-9.e]+$/mg;
is_deeply([ sort keys %help ], [ sort keys %type ], 'each family has HELP and TYPE');
is_deeply([ sort keys %value ], [ sort keys %type ], 'and samples');
is(scalar(grep { !/^(?:#|hyper_)/ } split /\n/, $text), 0, 'and there is no other line');
my %twice;
$twice{$_}++ for $text =~ /^# HELP (\w+) /mg;
is(scalar(grep { $_ > 1 } values %twice), 0, 'no family comes twice');
SKIP: {
	my ($missing) = run_program([ 'sh', '-c', 'command -v promtool' ]);
	skip 'promtool is not installed', 1 if $missing;
	my $file = write_file(tmp() . '/metrics.txt', $text);
	my ($code, $out, $err) = run_program([ 'sh', '-c', "promtool check metrics <'$file'" ]);
	is("$code $out$err", '0 ', 'promtool check metrics has nothing to say');
}
is(metric('hyper_calls_total{from="application",result="ok"}'), 1, 'the answered call');
is(metric('hyper_calls_total{from="application",result="unknown_operator"}'), 1, 'the one to nobody');
cmp_ok(metric('hyper_calls_total{from="self",result="ok"}'), '>=', 1, 'what this server asked itself, for the brokering');
is(metric('hyper_call_duration_seconds_count'), 3, 'three calls were timed');
is(metric('hyper_calls_in_flight'), 0, 'none is in flight');
is(metric('hyper_connections{kind="brokered"}'), 1, 'the pooled connection');
is(metric('hyper_connections{kind="standing_out"}'), 1, 'the standing stream');
is(metric('hyper_connections_made_total{side="a",result="paired"}'), 2, 'one to the proxy\'s server, one through the proxy');
cmp_ok(metric('hyper_grpc_bytes_total{direction="in"}'), '>', 100, 'bytes in');
cmp_ok(metric('hyper_grpc_bytes_total{direction="out"}'), '>', 100, 'bytes out');
cmp_ok(metric('hyper_directory_age_seconds'), '<', 120 * HyperTest::slow_factor(), 'the directory is fresh');
is(metric('hyper_directory_entries'), 12, 'with its operators') or diag($text =~ /(hyper_directory_entries.*)/);
cmp_ok(metric("hyper_cert_not_after_seconds{file=\"$c/hd-1.crt\"}"), '>', time, 'the certificate is good');
is(metric('hyper_config_last_reload_successful'), 1, 'no reload failed');
cmp_ok(abs(metric('hyper_fds_open') - $d->fds), '<=', 3, 'descriptors are counted');
is(metric('hyper_draining'), 0);

# Reloads are counted
my $file = "$m->{dir}/hd-1/001.cfg";
my $good = read_file($file);
write_file($file, "nonsense = 1;\n$good");
$d->signal('HUP');
ok($d->wait_log(qr/ error reload_failed /, 10), 'a reload fails');
is(metric('hyper_config_last_reload_successful'), 0, 'and is told');
is(metric('hyper_config_reloads_total'), 1);
write_file($file, $good);
$d->signal('HUP');
ok($d->wait_log(qr/ info reloaded /, 10), 'one succeeds');
is(metric('hyper_config_last_reload_successful'), 1, 'and is told');

# Health and the page
is((get('/healthz'))[2], "ok\n");
is((get('/readyz'))[2], "serving\n", 'ready');
like((get('/'))[2], qr/<script src="\/status.js">/, 'the page');
my $page = json_value((get('/status.json'))[2]);
is($page->{state}, 'serving');
is($page->{tiles}[0]{label}, 'calls in flight');
my %table = map { $_->{id} => $_ } @{ $page->{tables} };
is_deeply([ sort keys %table ], [qw(connections last results)], 'its tables');
my ($row) = grep { $_->[1] eq 'brokered' } @{ $table{connections}{rows} };
is_deeply([ @$row[ 0, 2 ] ], [qw(hd-2 public-proxy-1.ga)], 'to whom, through whom');
like($row->[3], qr/^[0-9a-f]{12}$/, 'with its session');
($row) = grep { $_->[0] eq $row->[3] } @{ $table{last}{rows} };
is_deeply([ @$row[ 1 .. 4 ] ], [ 'hd-2', 'us', 'public-proxy-1.ga', 'paired' ], 'and how it was made');
is(scalar @{ json_value((get('/history.json'))[2])->{series} }, 2, 'two graphs');
is($d->stop, 0);

# A server without a directory serves its pages and is not ready
{
	my $m2 = mesh(start => 0, hyper => { 'hd-1' => qq(metrics = { bind_address = "localhost:0"; };\n) });
	unlink "$m2->{dir}/hd-1.chain"; # what the mesh before this one has kept
	$m2->start_one('hd-1');
	$base = 'http://127.0.0.1:' . $m2->{'hd-1'}->ready('metrics_port');
	($status, $head, $text) = get('/readyz');
	is($status, 503, 'without a directory it is not ready');
	like($text, qr/the directory has not been fetched yet/, 'and says so');
	is((get('/healthz'))[0], 200, 'but healthy');
	is(metric('hyper_directory_age_seconds'), undef, 'there is no age');
	is($m2->{'hd-1'}->stop, 0);
}
hyper_done();
