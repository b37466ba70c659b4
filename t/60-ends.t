#!/usr/bin/perl
# Guards: with the real programs, each way in which a pair can end has one reason, the same at P's master and P's worker, one end at A's and one at B's hyper under the same session id; and the metrics sum up to what began. Port checks are counted.
use strict;
use warnings;
use HyperMesh;
use HyperTest;
use IO::Socket::IP ();
use POSIX ();
use Test::More;

my $socket = tmp() . '/admin.sock';
my $m = mesh(directory => 'json', workers => 2, start => 0, proxy => sprintf('token_timeout = %.1f;', 4 * slow_factor()), hyper => { 'hd-2' => "reconnect_max = 1;\n" });
write_file("$m->{dir}/proxy/002.cfg", qq(admin_socket = "$socket";\nmetrics = { bind_address = "localhost:0"; };\n));
$m->start_all;
my %env = (env => { HYPER_SETTINGS => "$m->{dir}/hd-1" });

sub metrics { return { `curl -sS --noproxy '*' --max-time 20 http://127.0.0.1:@{[ $m->{proxy}->ready('metrics_port') ]}/metrics` =~ /^([^# ]\S*(?:\{[^}]*\})?) (\S+)$/mg } }

# Master, worker, hd-1, hd-2: the reasons of this session's ends, in order
sub ends {
	my ($session) = @_;
	my %of = map { $_ => [] } qw(master worker hd-1 hd-2);
	for my $daemon (qw(hd-1 proxy hd-2)) {
		for (split /\n/, read_file($m->{$daemon}{log})) {
			next if !/ (?:info|warn) (?:ended|unpaired|connection_lost|grpc_closed) .*session=$session .*?reason=(\w+)/;
			push @{ $of{ $daemon ne 'proxy' ? $daemon : / proxy-worker-/ ? 'worker' : 'master' } }, $1;
		}
	}
	return \%of;
}

# All that began has ended once, and the metrics say so too.
sub adds_up {
	my ($what) = @_;
	my $count = sub { return $m->{proxy}->count_log(@_) };
	my ($paired, $ended, $now);
	my $ok = wait_until {
		($paired, $ended) = ($count->(qr/ proxy\[\d+\] info pair /), $count->(qr/ proxy\[\d+\] info ended /));
		$now = metrics();
		my $sum = 0;
		$sum += $now->{$_} for grep { /^hyper_pairs_total\{/ } keys %$now;
		$paired == $ended && $sum == $ended && $now->{hyper_pairs_active} == 0;
	} 10;
	ok($ok, "$what: as many ends as pairs, and pairs_total is their sum") or diag("$paired pairs, $ended ended, " . json_text($now));
	my ($asked, $sum) = (0, 0);
	wait_until {
		$now = metrics();
		($asked, $sum) = ($count->(qr/ proxy\[\d+\] info asked /), 0);
		$sum += $now->{$_} for grep { /^hyper_brokerings_total\{/ } keys %$now;
		$asked == $sum;
	} 10;
	is($sum, $asked, "$what: brokerings_total is the sum of what was asked");
	return;
}

# The proxy anew with these settings, once all that was is over.
sub proxy_with {
	my ($what, $settings) = @_;
	if ($m->{proxy}->is_running) { adds_up("before $what"); $m->{proxy}->stop }
	write_file("$m->{dir}/proxy/003.cfg", "public = { $settings };\n");
	$m->start_one('proxy');
	return;
}
sub again { my ($name) = @_; $m->{$name}->stop; $m->start_one($name); return }
sub verb { return run_program([ program('proxy'), @_ ], env => { PROXY_SETTINGS => "$m->{dir}/proxy" }) }
# A pair over which a call went; its session.
sub meet {
	again('hd-1');
	my ($code, $out, $err);
	wait_until { ($code, $out, $err) = run_program([ program('hyper'), 'ping', 'hd-2' ], %env); $code == 0 } 20;
	my ($session) = ($out // '') =~ /session ([0-9a-f]{12})/ or BAIL_OUT("no pair: $err");
	return $session;
}
sub moved { my ($session) = @_; my ($exit, $out) = verb('pairs', '--json'); my ($p) = grep { $_->{session} eq $session } @{ json_value($out)->{pairs} }; return $p ? $p->{bytes_ab} + $p->{bytes_ba} : 0 }
# They ended with these reasons; '' says that this party is not there to tell.
sub have_ended {
	my ($what, $session, $master, $worker, $a, $b) = @_;
	my %want = (master => $master, worker => $worker, 'hd-1' => $a, 'hd-2' => $b);
	my $of;
	wait_until { $of = ends($session); !grep { $want{$_} ne '' && !@{ $of->{$_} } } keys %want } 20;
	for (sort keys %want) {
		like(join(' ', @{ $of->{$_} }), qr/^$want{$_}$/, "$what: $_ says " . ($want{$_} || 'nothing') . ', once') or diag(json_text($of));
	}
	my $now = metrics();
	cmp_ok($now->{qq(hyper_pairs_total{end_reason="$master"})} // 0, '>=', 1, "$what: counted") if $m->{proxy}->is_running;
	return;
}

# closed: A ends
proxy_with('all', '');
my $session = meet();
$m->{'hd-1'}->stop;
have_ended('A stops', $session, 'closed', 'closed', 'stopped', 'closed');
$m->start_one('hd-1');

# kicked
$session = meet();
is((verb('kick', $session))[0], 0, 'kicked by the operator of P');
have_ended('kicked', $session, 'kicked', 'kicked', 'reset', 'reset');

# reset: B's process dies with a request unread
$session = meet();
$m->{'hd-2'}->signal('STOP');
my $before = moved($session);
my $pid = fork // die "fork: $!";
if (!$pid) { $m->ping(timeout => 20); POSIX::_exit(0) }
ok((wait_until { moved($session) > $before } 10), 'the request is on its way');
$m->{'hd-2'}->signal('KILL');
$m->{'hd-2'}->wait_exit(10);
have_ended('B dies with a request unread', $session, 'reset', 'reset', 'reset', '');
waitpid $pid, 0;
$m->start_one('hd-2');

# idle
proxy_with('idle', sprintf 'idle_timeout = %.1f;', 2 * slow_factor());
$session = meet();
have_ended('nobody says anything', $session, 'idle', 'idle', 'reset', 'reset');

# half_closed: B's process dies, A stands still and does not answer the end
proxy_with('half_closed', sprintf 'half_closed_timeout = %.1f;', 1 * slow_factor());
$session = meet();
$m->{'hd-1'}->signal('STOP');
$m->{'hd-2'}->signal('KILL');
$m->{'hd-2'}->wait_exit(10);
have_ended('B is gone, A stands still', $session, 'half_closed', 'half_closed', '', '');
$m->{'hd-1'}->signal('CONT');
have_ended('and A, later', $session, 'half_closed', 'half_closed', 'reset|closed', '');
$m->start_one('hd-2');

# stopped
proxy_with('stopped', '');
$session = meet();
is($m->{proxy}->stop, 0, 'P is stopped');
have_ended('P stops', $session, 'stopped', 'stopped', 'reset', 'reset');

# Port checks are counted, and cost no line
$m->start_one('proxy');
my $was = metrics();
my @probes = map { [ $_, IO::Socket::IP->new(PeerHost => 'localhost', PeerPort => $m->{port}{$_}) ] } qw(endpoint proxy proxy);
ok($_->[1], "$_->[0] is open") for @probes;
close $_->[1] for @probes;
my $now;
ok((wait_until { $now = metrics(); $now->{hyper_probes_total} - $was->{hyper_probes_total} == 2 } 10), 'hyper_probes_total counts those at the JSON-RPC port') or diag("$was->{hyper_probes_total} $now->{hyper_probes_total}");
ok((wait_until { $now = metrics(); $now->{'hyper_endpoint_refused_total{reason="probe"}'} - $was->{'hyper_endpoint_refused_total{reason="probe"}'} == 1 } 10), 'hyper_endpoint_refused_total those at the endpoint');
is($m->{proxy}->count_log(qr/ (?:info|warn|error) .*(?:probe|tls_failed|refused)/), 0, 'and there is no line of them above debug');

hyper_done();
