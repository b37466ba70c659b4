#!/usr/bin/perl
# Looking at a running proxy: its metrics, its page, `proxy status`, `pairs`, `tokens`, `explain`, `top` and `kick` tell what
# is so, and each brokering and pair ends with one reason that all of them share.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;

my $socket = tmp() . '/admin.sock';
my $p = proxy(workers => 2, token_timeout => 5, outer => qq(metrics = { bind_address = "localhost:0"; };\nadmin_socket = "$socket";\n));
my $base = 'http://127.0.0.1:' . $p->{d}->ready('metrics_port');

sub get {
	my ($exit, $out, $err) = run_program([ 'curl', '-sS', '--noproxy', '*', '--max-time', 20, "$base$_[0]" ]);
	is($exit, 0, "GET $_[0]") or diag $err;
	return $out;
}

# The value of one sample, with labels as written.
my %now;
sub look { my $text = get('/metrics'); %now = $text =~ /^([^# ]\S*(?:\{[^}]*\})?) (\S+)$/mg; return $text }
sub metric { return $now{ $_[0] } // 'none' }

sub verb { return $p->verb(@_) }
sub told_json { my ($exit, $out, $err) = verb(@_, '--json'); is($exit, 0, "proxy @_") or diag $err; return json_value($out || '{}') }

my $text = look();
SKIP: {
	my ($none) = run_program([ 'sh', '-c', 'command -v promtool' ]);
	skip 'promtool is not installed', 1 if $none;
	my $file = write_file(tmp() . '/metrics.txt', $text);
	my ($code, $out, $err) = run_program([ 'sh', '-c', "promtool check metrics <'$file'" ]);
	is("$code $out$err", '0 ', 'promtool check metrics has nothing to say');
}
is(get('/readyz'), "serving\n");
is(metric('hyper_pairs_active'), 0);
is(metric('hyper_workers_serving'), 2);

# a pair, with bytes
my ($a, $b, $session) = $p->pair;
send_all($a, 'x' x 5000);
is(length read_exactly($b, 5000), 5000);
send_all($b, 'y' x 300);
is(length read_exactly($a, 300), 300);
ok(wait_until(sub { look(); return metric('hyper_bytes_total{direction="a_to_b"}') + metric('hyper_bytes_total{direction="b_to_a"}') == 5300 }, 10), 'bytes are counted while the pair lives');
is(metric('hyper_pairs_active'), 1);
is(metric('hyper_brokerings_total{result="paired"}'), 1);
is(metric('hyper_pair_wait_seconds_count'), 1);
my $status = told_json('status');
is($status->{pairs}, 1);
is($status->{state}, 'serving');
is(scalar @{ $status->{workers} }, 2);
my $pairs = told_json('pairs')->{pairs};
is(scalar @$pairs, 1);
is($pairs->[0]{session}, $session, 'pairs names the session');
is("$pairs->[0]{from} $pairs->[0]{to}", 'hd-1 hd-2');
is_deeply([ sort @{ $pairs->[0] }{qw(bytes_ab bytes_ba)} ], [ 300, 5000 ], 'and its bytes');
cmp_ok($pairs->[0]{rtt_a_us}, '>', 0, 'and its round-trip time');
is(scalar @{ told_json('pairs', '--operator', 'hd-2')->{pairs} }, 1);
is(scalar @{ told_json('pairs', '--operator', 'hd-3')->{pairs} }, 0);
like((verb('pairs'))[1], qr/^$session +hd-1 +hd-2 /m, 'as a table');
is(scalar(grep { length > 80 } split /\n/, (verb('pairs'))[1]), 0, 'in 80 columns');
like((verb('top'))[1], qr/^$session +hd-1 +hd-2 /m, 'top, once, where there is no terminal');
my $page = json_value(get('/status.json'));
my ($table) = grep { $_->{id} eq 'pairs' } @{ $page->{tables} };
is($table->{rows}[0][0], $session, 'the page has the pair');

# a token that waits
my $ask = $p->ask;
my $told = $p->told;
$told->answer;
my $waiting = $ask->answer->{result};
my $first = $p->come($told->token);
ok(wait_until(sub { (told_json('tokens')->{tokens}[0] // {})->{state} eq 'parked' }, 10), 'a parked token');
is(told_json('tokens')->{tokens}[0]{session}, $waiting->{session});
like((verb('explain', $waiting->{session}))[1], qr/under way/, 'explain: under way');
ok($p->{d}->wait_log(qr/unpaired session=$waiting->{session} .*reason=expired/, 20), 'A never comes');
my ($exit, $out) = verb('explain', $waiting->{session});
like($out, qr/4 parked .*not paired: expired, at step paired.*A or B too late/s, 'explain says that one of the two was too late');
look();
is(metric('hyper_brokerings_total{result="expired"}'), 1);

# kick: the pair ends for a reason of its own, the same word everywhere
is(told_json('kick', $session)->{pairs}, 1);
is((read_to_end($a))[1], 'reset', 'who is kicked sees a reset');
is((read_to_end($b))[1], 'reset');
ok($p->{d}->wait_log(qr/proxy\[\d+\] info ended .*session=$session .*reason=kicked/, 10), 'the master says kicked'); # a worker says so before the master has counted it
look();
is(metric('hyper_pairs_total{end_reason="kicked"}'), 1, 'so do the metrics');
is(metric('hyper_pairs_active'), 0);
like((verb('explain', $session))[1], qr/ended: kicked/, 'and explain');
like((verb('explain', 'hd-2'))[1], qr/$session.*/s, 'explain by operator');
($exit, undef, my $err) = verb('kick', $session);
is($exit, 1, 'a second time there is nobody');
like($err, qr/has no pair and no token/);

# a worker that dies is counted, and its counters stay
my $accepted = metric('hyper_endpoint_connections_total');
kill 'KILL', ($p->{d}->children)[0];
ok(wait_until(sub { look(); return metric('hyper_worker_restarts_total') == 1 && metric('hyper_workers_serving') == 2 }, 20), 'restarts');
cmp_ok(metric('hyper_endpoint_connections_total'), '>=', $accepted, 'no counter goes back');

# bytes of a pair that is on its way to a worker which has not taken it up yet are counted all the same
{
	my ($a, $b) = $p->pair;
	send_all($a, 'x' x 5000);
	is(length read_exactly($b, 5000), 5000);
	my $pair = told_json('pairs')->{pairs}[0];
	my $moved = sub { look(); return metric('hyper_bytes_total{direction="a_to_b"}') + metric('hyper_bytes_total{direction="b_to_a"}') };
	my $before = $moved->();
	my ($old, $other) = map { $p->worker_pid($_) } $pair->{worker}, 1 - $pair->{worker};
	kill 'STOP', $other;
	kill 'KILL', $old;
	my $handed = wait_until(sub { $p->{d}->count_log(qr/ resume .*session=$pair->{session} /) }, 10);
	my $after = $moved->();
	my $row = told_json('pairs')->{pairs}[0];
	kill 'CONT', $other;
	ok($handed, 'handed to a worker that stands still');
	is($after, $before, 'its bytes are still counted');
	is(($row // {})->{session}, $pair->{session}, 'and it is listed');
	is($row->{bytes_ab} + $row->{bytes_ba}, 5000, 'with them');
	send_all($b, 'y' x 300);
	is(length read_exactly($a, 300), 300, 'it goes on');
	ok(wait_until(sub { $moved->() == $before + 300 }, 10), 'and its bytes are counted once');
}

is($p->{d}->stop, 0);
($exit, undef, $err) = verb('status');
is($exit, 69, 'nobody answers: 69');
like($err, qr/is it running/);
ok(!-e $socket, 'the socket is gone');
hyper_done();
