#!/usr/bin/perl
# The listener for monitoring: metrics that Prometheus takes, health with reasons, a page that loads nothing from
# elsewhere; GET and HEAD only; nobody can hold it up or change anything through it.
use strict;
use warnings;
use HyperTest;
use HyperSd;
use IO::Socket::INET;
use Test::More;

my $sd = sd_new(metrics => 'localhost:0');
my $daemon = $sd->start_sd;
my $port = $daemon->ready('metrics_port');
my $base = "http://127.0.0.1:$port";
my $before = $daemon->fds;

# (status, headers, body) of one request made by real curl
sub get {
	my ($path, @more) = @_;
	my ($exit, $out) = run_program([ 'curl', '-sS', '--noproxy', '*', '-i', '--max-time', 10 * HyperTest::slow_factor(), @more, "$base$path" ]);
	my ($head, $body) = split /\r\n\r\n/, $out, 2;
	return ($head =~ m{^HTTP/1\.1 (\d+)} ? $1 : "curl $exit", $head, $body);
}

sub metric {
	my (undef, undef, $text) = get('/metrics');
	return $text =~ /^\Q$_[0]\E (\S+)$/m ? $1 : undef;
}

my ($status, $head, $text) = get('/metrics');
is($status, 200);
like($head, qr{^Content-Type: text/plain; version=0\.0\.4}m, 'the type that Prometheus asks for');
my %help = map { $_ => 1 } $text =~ /^# HELP (\w+) /mg;
my %type = map { $_ => 1 } $text =~ /^# TYPE (\w+) (?:counter|gauge|histogram)$/mg;
my %value = map { $_ => 1 } $text =~ /^(\w+)(?:\{[^}]*\})? [-+0-9.e]+$/mg;
is_deeply([ sort keys %help ], [ sort keys %type ], 'each family has HELP and TYPE');
is_deeply([ sort keys %value ], [ sort keys %type ], 'and samples');
is(scalar(grep { !/^hyper_/ } keys %type), 0, 'all names begin with hyper_');
is(scalar(grep { !/^(?:#|hyper_)/ } split /\n/, $text), 0, 'and there is no other line');
SKIP: {
	my ($exit) = run_program([ 'sh', '-c', 'command -v promtool' ]);
	skip 'promtool is not installed', 1 if $exit;
	my $file = write_file(tmp() . '/metrics.txt', $text);
	my ($code, $out, $err) = run_program([ 'sh', '-c', "promtool check metrics <'$file'" ]);
	is("$code $out$err", '0 ', 'promtool check metrics has nothing to say');
}
cmp_ok(abs(metric('hyper_fds_open') - $daemon->fds), '<=', 3, 'descriptors are counted');
cmp_ok(abs(metric('hyper_start_time_seconds') - time), '<', 60 * HyperTest::slow_factor(), 'the start is just behind us');
cmp_ok(metric('hyper_cert_not_after_seconds{file="' . certs() . '/sd-1.crt"}'), '>', time, 'the certificate is good');
is(metric('hyper_directory_requests_total{method="getTip"}'), 0);
is($sd->call('getTip')->{http}, 200);
is(metric('hyper_directory_requests_total{method="getTip"}'), 1, 'a request is counted');

is((get('/healthz'))[0], 200);
is((get('/healthz'))[2], "ok\n");
is((get('/readyz'))[2], "serving\n", 'ready');

($status, $head, $text) = get('/');
is($status, 200);
like($text, qr/<script src="\/status.js">/);
like($head, qr/^Content-Security-Policy: default-src 'none'; script-src 'self'/m, 'its policy permits nothing from elsewhere');
for my $file ('/', '/status.css', '/status.js') {
	(my $body = (get($file))[2]) =~ s{http://www\.w3\.org/2000/svg}{}g;
	unlike($body, qr{https?://|//[a-z]}, "$file names no other server");
}
my $page = json_value((get('/status.json'))[2]);
is($page->{state}, 'serving');
is($page->{tiles}[0]{label}, 'records');
my ($table) = grep { $_->{id} eq 'methods' } @{ $page->{tables} };
is_deeply($table->{rows}[0], [ 'getTip', 1 ], 'the page knows the request too');
is(scalar @{ json_value((get('/history.json'))[2])->{series} }, 2);

is((get('/nothing'))[0], 404);
for my $method (qw(POST PUT DELETE PATCH OPTIONS)) {
	my ($code, $headers) = get('/metrics', '-X', $method, '-d', 'x');
	is($code, 405, "$method is refused");
	like($headers, qr/^Allow: GET, HEAD/m);
}
($status, $head) = get('/metrics', '-I');
is($status, 200, 'HEAD');

sub raw { return IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port, Proto => 'tcp') // die "connect: $@\n" }

my $bad = raw();
print $bad "nonsense\r\n\r\n";
like((read_to_end($bad, 10))[0], qr{^HTTP/1\.1 400 }, 'what is no HTTP is told so');
my $long = raw();
print $long "GET / HTTP/1.1\r\nX: ", 'x' x 20000, "\r\n";
like((read_to_end($long, 10))[0], qr{^HTTP/1\.1 431 }, 'a head without an end as well');

# more silent connections than there are places
my @silent = map { raw() } 1 .. 80;
is((get('/healthz'))[0], 200, '80 silent ones do not keep the eighty-first from its answer');
ok($daemon->fds < $before + 80, 'the oldest made room');
is((read_to_end($silent[0], 20))[1], 'eof', 'the silent ones are closed at the latest after 10 s');
close $_ for @silent;
ok(wait_until(sub { $daemon->fds <= $before }, 10), 'descriptors are back');

is($daemon->stop, 0);
hyper_done();
