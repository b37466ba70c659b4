#!/usr/bin/perl
# Guards: `proxy selftest` goes the way of operators through the endpoint, and its exit status and first line say to monitoring whether that works, how fast, or at which step not.
use strict;
use warnings;
use HyperTest;
use IO::Socket::IP ();
use ProxyTest;
use Test::More;

my ($socket, $n);
my @names = qw(token connect park pair echo half-close);
sub new_proxy { my (%opt) = @_; $socket = tmp() . '/admin' . ++$n . '.sock'; return proxy(workers => 2, outer => qq(admin_socket = "$socket";\nmetrics = { bind_address = "localhost:0"; };\n), %opt) }
sub selftest { my ($p, @words) = @_; return $p->verb('selftest', @words) }
sub metric {
	my ($p, $name) = @_;
	my $text = `curl -sS --noproxy '*' --max-time 20 http://127.0.0.1:@{[ $p->{d}->ready('metrics_port') ]}/metrics`;
	return $text =~ /^\Q$name\E (\S+)$/m ? $1 : 'none';
}
my $long = 60 * slow_factor();

# Well
{
	my $p = new_proxy(more => "max_tokens_per_operator = 1; max_pairs_per_operator = 1; request_rate_per_operator = 1; bytes_per_second_per_operator = 65536;");
	my ($exit, $out, $err) = selftest($p, '--timeout', $long);
	is("$exit $err", '0 ', 'OK is 0');
	like($out, qr/^SELFTEST OK: [\d.]+ ms through 127\.0\.0\.1:$p->{port}, session ([0-9a-f]{12}) \| total=[\d.]+ms( [a-z-]+=[\d.]+ms){6}$/m, 'the first line');
	my ($session) = $out =~ /session (\w+)/;
	like($out, qr/^$_ +[\d.]+ ms$/m, "time of $_") for @names;
	my $ended = $p->wait_ended($session);
	is("$ended->{reason} $ended->{bytes_ab} $ended->{bytes_ba}", 'closed 1048576 1048577', 'the log has its pair');
	like($p->log_text, qr/ asked session=$session from=\@selftest to=\@selftest /, 'under a name that no operator has');
	($exit, $out) = selftest($p, '--json', '--timeout', $long);
	my $r = json_value($out);
	is("$exit $r->{status} $r->{code} $r->{state} $r->{bytes}", '0 OK 0 serving 1048576', 'as JSON');
	is_deeply([ sort keys %{ $r->{steps_ms} } ], [ sort @names ], 'with each step');
	is(metric($p, 'hyper_selftests_total'), 2, 'counted');
	like(($p->verb('explain', $r->{session}))[1], qr/\@selftest -> \@selftest.*ended: closed/s, 'explained');

	# limits of operators are not in its way, nor is it in theirs
	my ($a, $b) = $p->pair;
	my @running = map { my $pid = fork // die; if (!$pid) { open STDOUT, '>', '/dev/null'; $ENV{PROXY_SETTINGS} = $p->{dir}; exec program('proxy'), 'selftest', '--timeout', $long } $pid } 1 .. 3;
	is(join(' ', map { waitpid $_, 0; $? } @running), '0 0 0', 'three at a time, beside an operator at its limits');
	joined($a, $b, 'whose pair lives');
	is(metric($p, 'hyper_quota_refused_total{limit="' . $_ . '"}'), 0, "$_ was not met") for qw(max_tokens_per_operator max_pairs_per_operator request_rate_per_operator);
	close $_ for $a, $b;

	# slow
	($exit, $out) = selftest($p, '-w', '0.001', '-c', '1e6', '--timeout', $long);
	is($exit, 1, 'slower than --warning is 1');
	like($out, qr/^SELFTEST WARNING: slow: [\d.]+ ms, over --warning 0\.001, session \w+ \| total=[\d.]+ms;0\.001;1e\+06 /, 'and says so');
	($exit, $out) = selftest($p, '--warning', 0, '--critical', 0.001, '--timeout', $long);
	is($exit, 2, 'slower than --critical is 2');
	like($out, qr/^SELFTEST CRITICAL: slow/, 'and says so');

	# wrong usage
	is((selftest($p, $_->@*))[0], 3, "selftest @$_: 3") for ['--nonsense'], [ '-w', 'x' ], [ '--timeout', '-1' ], ['word'], [ '--endpoint', 'nowhere' ];
	is((run_program([ program('proxy'), 'selftest' ], env => { PROXY_SETTINGS => tmp() . '/none' }))[0], 3, 'no settings: 3');

	# a reload and an upgrade change nothing
	$p->{d}->signal('USR2');
	isnt($p->{d}->wait_log(qr/ info upgraded /, 30), undef, 'an upgrade');
	ok(wait_until(sub { $p->{d}->count_log(qr/ info ready /) == 2 }, 30), 'is done');
	is((selftest($p, '--timeout', $long))[0], 0, 'the new program is well');

	# draining
	my $pair = [ $p->pair ];
	is(($p->verb('drain', '--deadline', 0))[0], 1, 'it drains');
	($exit, $out) = selftest($p, '--timeout', $long);
	is($exit, 0, 'a draining proxy is well');
	like($out, qr/^SELFTEST OK: .*, the proxy is draining/, 'and it is said that it drains');
	joined(@$pair[ 0, 1 ], 'nobody else was touched');
}
# What is wrong, and where
sub fails {
	my ($what, $p, $step, $re, @words) = @_;
	my ($exit, $out, $err) = selftest($p, @words);
	is($exit, 2, "$what: 2") or diag($out, $err);
	like($out, qr/^SELFTEST CRITICAL: $step: .*$re/, "$what: at $step, and why");
	my $at = grep { $names[$_] eq $step } 0 .. $#names;
	like($out, qr/^\Q$step\E +failed$/m, "$what: the list shows it");
	my $r = json_value((selftest($p, @words, '--json'))[1]);
	is("$r->{code} $r->{failed_step}", "2 $step", "$what: as JSON");
	return;
}
{
	my $p = new_proxy(token_timeout => 4, more => 'table_slots = 1;');
	my $closed = free_port();
	fails('a closed port', $p, 'connect', qr/refused: is the port open/, '--endpoint', "127.0.0.1:$closed");
	is(metric($p, 'hyper_tokens'), 0, 'its token was given back');
	fails('a name that nobody has', $p, 'connect', qr/no-such-host\.invalid/, '--endpoint', 'no-such-host.invalid:9');
	# a queue that is full is answered as by a firewall: not at all
	my $full = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => 0, Listen => 1) or die $!;
	my @waiting = map { IO::Socket::IP->new(PeerHost => '127.0.0.1', PeerPort => $full->sockport, Blocking => 0) } 1 .. 4;
	fails('a firewall that drops', $p, 'connect', qr/no answer to the TCP connection in time: is the port open/, '--endpoint', '127.0.0.1:' . $full->sockport, '--timeout', slow_factor());
	my $silent = IO::Socket::IP->new(LocalHost => '127.0.0.1', LocalPort => 0, Listen => 8) or die $!;
	fails('somebody else\'s port', $p, 'park', qr/the proxy ended it: expired/, '--endpoint', '127.0.0.1:' . $silent->sockport, '--timeout', $long);

	# the table is full, for operators as well
	my $ask = $p->ask;
	my $told = $p->told;
	fails('a full table', $p, 'token', qr/busy: the token table is full/);
	$told->answer;
	$ask->answer;
	ok(wait_until(sub { metric($p, 'hyper_tokens') == 0 }, 20), 'room again');

	# workers that stand still: the port is open, and nobody reads
	kill 'STOP', $p->worker_pids; # for less than the 4 s after which they would be replaced
	my ($exit, $out) = selftest($p, '--timeout', slow_factor() < 2 ? slow_factor() : 2);
	is($exit, 2, 'workers that stand still: 2');
	like($out, qr/^SELFTEST CRITICAL: park: the master has not seen it within the time-out/, 'at park');
	kill 'CONT', $p->worker_pids;
	ok(wait_until(sub { metric($p, 'hyper_tokens') + metric($p, 'hyper_parked') == 0 }, 20), 'and it leaves nothing');

	# a master that stands still
	stop_process($p->{d}->pid);
	($exit, $out) = selftest($p, '--timeout', slow_factor());
	is($exit, 2, 'a master that stands still: 2');
	like($out, qr/^SELFTEST CRITICAL: token: the master does not answer/, 'at token');
	$p->{d}->signal('CONT');
	is((stat $socket)[2] & 0777, 0600, 'only its own user and root may ask');
	$p->note_fds;
	# the one that gave up may have a token until the master has read that it is gone, and the table holds one
	ok(wait_until(sub { (selftest($p, '--timeout', $long))[0] == 0 }, 20), 'well again');
	$p->fds_are_back('after it');
	is($p->{d}->stop, 0, 'it stops');
	($exit, $out) = selftest($p);
	is($exit, 3, 'nobody runs: 3');
	like($out, qr/^SELFTEST UNKNOWN: token: .*is it running/, 'and says so');
}
# What operators are told to dial leads nowhere
{
	my $closed = free_port();
	my $p = new_proxy(start => 0);
	write_file("$p->{dir}/001.cfg", $p->{settings} =~ s/internal_endpoint = "[^"]*"/internal_endpoint = "127.0.0.1:$closed"/r);
	$p->launch;
	fails('public.internal_endpoint leads nowhere', $p, 'connect', qr/127\.0\.0\.1:$closed.*does public\.internal_endpoint lead to this proxy/);
	is((selftest($p, '--endpoint', "127.0.0.1:$p->{port}", '--timeout', $long))[0], 0, 'and the true one is well');
}
hyper_done();
